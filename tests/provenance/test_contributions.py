import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.aggregation import RULES, Svd
from core.errors import UsageError
from provenance import contributions as module
from provenance.contributions import Contributions
from provenance.factors import bytes_each
from provenance.history import Float64, StoredRound
from tests.precision import assert_equal_up_to_rounding
from tests.provenance.conftest import Federate, organisation

UNEVEN = ((0, 1, 2, 3), (0, 2), (1, 3), (0, 2))
"""Organisation 1 and 3 are absent from the last round."""


def dense(contributions: Contributions, name: str) -> torch.Tensor:
    """Every organisation's L R at a module, (K, out, in), float64."""
    count = len(contributions.organisations)
    found = []
    for part, terms in contributions.chunks(2):
        rows = part.stop - part.start
        products = [term.left.double() @ term.right.double() for term in terms[name]]
        found.append(sum(product.expand(rows, -1, -1) for product in products))
    whole = torch.cat(found)
    assert len(whole) == count
    return whole


@pytest.mark.parametrize("rule", ["frozen-a", "fedavg", "stack"])
def test_contributions_add_up_to_what_is_served(federate: Federate, rule: str) -> None:
    subject = federate(rule_name=rule, rank=2, rounds=UNEVEN)
    assert subject.contributions.gap(subject.adapter) < 1e-6
    for name in list(subject.contributions.modules)[:3]:
        b, a = (subject.adapter[f"{name}.lora_{which}"].astype(np.float64) for which in "BA")
        assert torch.allclose(dense(subject.contributions, name).sum(0), torch.from_numpy(b @ a), atol=1e-6)


def test_svd_contributions_add_up_to_the_product_before_truncation(federate: Federate) -> None:
    subject = federate(rule_name="svd", rounds=((0, 1, 2),))
    (step,) = subject.contributions.lanes[0]
    lost = Svd().error(step.before(), step.updates, step.after())
    name = subject.contributions.modules[0]
    exact = sum(
        u.weight
        * (step.before()[f"{name}.lora_B"] + u.state[f"{name}.lora_B"]).astype(np.float64)
        @ (step.before()[f"{name}.lora_A"] + u.state[f"{name}.lora_A"])
        for u in step.updates
    )
    assert torch.allclose(dense(subject.contributions, name).sum(0), torch.from_numpy(np.asarray(exact)), atol=1e-6)
    # The gap is relative to what is served, the rule's residual to what was exact; probes estimate it.
    assert subject.contributions.gap(subject.adapter) == pytest.approx(lost / np.sqrt(1 - lost**2), rel=0.1)


def test_frozen_a_contributions_are_the_weighted_sums_of_updates(federate: Federate) -> None:
    subject = federate(rounds=UNEVEN)
    name = subject.contributions.modules[0]
    a = subject.adapter[f"{name}.lora_A"].astype(np.float64)
    second = np.zeros_like(subject.adapter[f"{name}.lora_B"], dtype=np.float64)
    for step in subject.contributions.lanes[0]:
        for update in step.updates:
            if update.organisation == organisation(1):
                second += update.weight * update.state[f"{name}.lora_B"]
    assert torch.allclose(dense(subject.contributions, name)[1], torch.from_numpy(second @ a), atol=1e-6)


def test_independently_trained_lanes_count_with_their_share(federate: Federate) -> None:
    one = federate(rounds=((0, 1),)).contributions
    ((step,),) = one.lanes
    lanes = tuple(
        (step._replace(updates=(replace(update, weight=share),)),)
        for update, share in zip(step.updates, (0.25, 0.75), strict=True)
    )
    apart = replace(one, lanes=lanes)
    rule = RULES["frozen-a"]
    states = [rule.aggregate(step.before(), [replace(update, weight=1.0)]).state for update in step.updates]
    served = rule.compose([(0.25, states[0]), (0.75, states[1])])
    assert apart.gap(rule.adapter(served, one.fresh)) < 1e-6
    assert apart.candidates == one.organisations


@pytest.mark.parametrize("rule", list(RULES))
def test_chunks_change_nothing(federate: Federate, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contributions = federate(rule_name=rule, rank=2, rounds=((0, 1, 2, 3, 4), *UNEVEN[1:])).contributions
    source = torch.Generator().manual_seed(1)
    shapes = {n: contributions.fresh[f"{n}.lora_A"].shape[1] for n in contributions.modules}
    widths = {n: contributions.fresh[f"{n}.lora_B"].shape[0] for n in contributions.modules}
    x = {name: torch.randn(2, 3, width, generator=source) for name, width in shapes.items()}
    g = {name: torch.randn(2, 3, width, generator=source) for name, width in widths.items()}
    whole = contributions.contract((x, g))
    terms = 6 * sum(shapes.values()) + 6 * sum(widths.values())  # of all modules, at two rows of three positions
    assert_equal_up_to_rounding(contributions.contract((x, g), size=3), whole, terms)
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    in_a_file = replace(contributions)
    for _ in range(2):
        assert_equal_up_to_rounding(in_a_file.contract((x, g)), whole, terms)
    # Chunks of other ranks than the first, and one organisation alone between others, whose factors are its own.
    monkeypatch.setattr(module, "_CHUNK_BYTES", 3 * bytes_each(contributions, contributions.modules))
    uneven = replace(contributions)
    for size in (None, 2):
        assert_equal_up_to_rounding(uneven.contract((x, g), size=size), whole, terms)


@pytest.mark.parametrize("rule", ["frozen-a", "fedavg", "svd"])
def test_memory_does_not_grow_with_the_organisations(
    federate: Federate, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = []
    for count in (8, 32):
        contributions = federate(rule_name=rule, rank=24, rounds=(tuple(range(count)),)).contributions
        monkeypatch.setattr(module, "_KEPT_BYTES", 0)
        monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * bytes_each(contributions, contributions.modules))
        tracemalloc.start()
        places = [part for part, _ in contributions.chunks()]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert places == [slice(start, start + 4) for start in range(0, count, 4)]
    assert peaks[1] < 1.1 * peaks[0]


def test_the_last_rounds_clients_are_candidates(federate: Federate) -> None:
    contributions = federate(rounds=UNEVEN).contributions
    assert contributions.candidates == (organisation(0), organisation(2))
    name, last = contributions.modules[0], contributions.lanes[0][-1]
    ((part, terms),) = contributions.clients([name])
    assert part == slice(0, 2)
    wanted = last.before()[f"{name}.lora_B"] + last.updates[1].state[f"{name}.lora_B"]
    assert np.allclose(terms[name][0].left[1].numpy(), wanted)


def test_a_client_of_several_shards_is_their_mean(federate: Federate) -> None:
    contributions = federate(rounds=((0, 1), (0, 1))).contributions
    (lane,) = contributions.lanes
    name = contributions.modules[0]

    def client(*lanes: tuple[StoredRound, ...]) -> Float64:
        ((_, terms),) = replace(contributions, lanes=lanes).clients([name])
        return terms[name][0].left.double().numpy()

    assert np.allclose(client(lane, lane[:1]), (client(lane) + client(lane[:1])) / 2)
    assert not np.allclose(client(lane, lane[:1]), client(lane[:1]))


def test_bad_input(federate: Federate) -> None:
    contributions = federate().contributions
    with pytest.raises(UsageError, match="contributed nothing"):
        contributions.position(organisation(9))
    assert contributions.position(organisation(2)) == 2
    with pytest.raises(UsageError, match="no round"):
        replace(contributions, lanes=((), ()))
