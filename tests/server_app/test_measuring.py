"""Measuring on the shared validation set, on a small random model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import server_app.measuring
from agents.credit import CreditedRound
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.composition import Composition
from core.config import RunConfig
from core.credit import CreditRecord
from core.errors import ConfigError, DataError
from core.storage.run_folder import RunFolder
from core.update import LARGEST_LOSS
from llm import batches
from llm.evaluate import evaluate
from llm.model import ModelSpec, load
from llm.records import Record
from llm.served import shared_adapter
from server_app.measuring import Measuring, check_turns, digest_of, known_data
from tests import federation as f
from tests.llm.conftest import byte_tokenizer

RANK, ALPHA = 2, 4.0


@pytest.fixture(scope="module")
def config(base: Path, data: Path) -> RunConfig:
    return RunConfig(base=str(base), data=str(data), quantisation="none", rank=RANK, alpha=ALPHA, max_length=48)


@pytest.fixture(scope="module")
def measuring(config: RunConfig) -> Measuring:
    return measuring_of(config)


def measuring_of(config: RunConfig, limit: int = 0) -> Measuring:
    model = load(ModelSpec(config.base, "none", RANK, ALPHA))
    fresh = shared_adapter(model, RANK, config.seed)
    return Measuring.of(replace(config, evaluate_limit=limit), model, fresh, known_data(config).validation)


def moved(measuring: Measuring, size: float) -> AdapterState:
    """The state before any training with every entry moved by so much."""
    initial = measuring.rule.initial(measuring.fresh)
    return AdapterState({name: array + np.float32(size) for name, array in initial.arrays.items()})


def test_every_domain_of_the_validation_set_has_a_loss_of_its_own(measuring: Measuring) -> None:
    initial = Composition.of(measuring.rule.initial(measuring.fresh))
    losses = measuring.losses(initial)
    assert set(losses) == {"coding", "financial", "medical"}
    assert len(set(losses.values())) == 3
    assert measuring.losses(initial) == losses
    assert measuring.losses(Composition.of(moved(measuring, 0.05))) != losses


def test_of_the_states_that_were_measured_the_newest_are_remembered(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_app.measuring, "_MOST_KNOWN", 2)
    read = list[int]()
    real = server_app.measuring.record_losses
    monkeypatch.setattr(server_app.measuring, "record_losses", lambda *given: read.append(1) or real(*given))
    own, states = replace(measuring), [moved(measuring, size) for size in (0.01, 0.02, 0.03)]
    for state in (*states, *reversed(states)):
        own.loss(state)
    assert len(read) == 4


def test_the_effect_of_an_update_is_what_it_alone_adds_to_the_loss_of_a_few_records(measuring: Measuring) -> None:
    before, size = moved(measuring, 0.0), np.float32(0.05)
    update = AdapterState({name: np.full_like(array, size) for name, array in before.arrays.items()})
    few = replace(measuring, domains={name: known[:1] for name, known in measuring.domains.items()})
    asked = [WeightedUpdate(f.address(name), 1.0, update) for name in ("coding", "medical")]
    ((first, effect),) = measuring.effects(before, asked, 0.0).items()
    assert first == f.address("coding"), "without time the first alone is measured"
    assert measuring.effects(before, asked, 600.0) == dict.fromkeys((update.organisation for update in asked), effect)
    assert effect == pytest.approx(few.loss(moved(measuring, 0.05)) - few.loss(before), abs=1e-6)
    assert effect != 0.0


@pytest.mark.parametrize(
    ("slope", "size", "harm"),
    [
        (-1.0, 0.1, -0.08),  # honest: it lowers the loss
        (-1.0, -0.1, 0.10),  # its opposite raises it by 0.12, of which 0.02 are for its size alone
        (0.01, 0.3, 0.003),  # a disturbance: its opposite raises it by 0.177, and it by 0.183
    ],
)
def test_the_harm_of_an_update_is_what_its_opposite_would_undo(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch, slope: float, size: float, harm: float
) -> None:
    before, measured = moved(measuring, 0.0), []

    def loss(_self: Measuring, state: AdapterState) -> float:
        along = float(np.mean([array.mean() for array in state.arrays.values()]))
        measured.append(round(along, 6))
        return slope * along + 2 * along**2

    monkeypatch.setattr(Measuring, "loss", loss)
    update = WeightedUpdate(f.address("coding"), 1.0, moved(measuring, size))
    assert measuring.harms(before, [update], 0.05) == {f.address("coding"): pytest.approx(harm, abs=1e-6)}
    # What lowers the loss is measured once.
    assert (-size in measured) == (size < 0 or slope > 0)


def test_the_loss_of_a_domain_is_that_of_its_records(measuring: Measuring) -> None:
    state = moved(measuring, 0.05)
    adapter, losses = measuring.rule.adapter(state, measuring.fresh), measuring.losses(Composition.of(state))
    for name, records in measuring.domains.items():
        alone = evaluate(measuring.model, adapter, records, measuring.max_length).loss
        assert losses[name] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("size", [1e20, 3e38])
def test_a_state_that_diverged_has_the_largest_loss_and_can_be_recorded(measuring: Measuring, size: float) -> None:
    """An organisation that has ruined the model can still be erased: a certificate holds no NaN."""
    diverged = moved(measuring, size)
    losses = measuring.losses(Composition.of(diverged))
    assert set(losses.values()) == {LARGEST_LOSS}
    assert measuring.loss(diverged) == measuring.loss_bound(diverged) == LARGEST_LOSS
    update = WeightedUpdate(f.address("medical"), 1.0, moved(measuring, size))
    credited = measuring.credit(CreditedRound(measuring.rule.initial(measuring.fresh), [update], diverged, None))
    assert set(credited.mean.values()) == {0.0}
    assert CreditRecord(credited, credited.mean).digest


def test_a_limit_takes_the_first_records_of_every_domain(config: RunConfig) -> None:
    limited = measuring_of(config, limit=1)
    assert {name: len(records) for name, records in limited.domains.items()} == dict.fromkeys(
        ("coding", "financial", "medical"), 1
    )


def test_the_credits_of_a_round_add_up_to_its_change_of_loss(measuring: Measuring) -> None:
    before, after = moved(measuring, 0.0), moved(measuring, 0.02)
    update = AdapterState({name: after[name] - before[name] for name in before})
    half = {name: WeightedUpdate(f.address(name), 0.5, update) for name in ("medical", "coding")}
    credited = measuring.credit(CreditedRound(before, list(half.values()), after, None))
    losses = measuring.losses(Composition.of(before)), measuring.losses(Composition.of(after))
    for name, domain in credited.domains.items():
        total = sum(domain.credits.values()) + domain.nobody + domain.residual
        assert total == pytest.approx(losses[0][name] - losses[1][name], abs=1e-6)


def test_the_gradient_of_a_state_has_its_arrays(measuring: Measuring) -> None:
    state = moved(measuring, 0.01)
    loss, gradient = measuring.loss_and_gradient(state, "coding")
    assert loss == pytest.approx(measuring.losses(Composition.of(state))["coding"], abs=1e-5)
    assert gradient.shapes == state.shapes


def test_a_validation_set_is_known_by_records_domains_and_order(config: RunConfig) -> None:
    records = known_data(config).validation
    assert digest_of(records) == digest_of(tuple(records))
    assert digest_of(records) != digest_of(records[::-1])
    assert digest_of(records) != digest_of((replace(records[0], domain="other"), *records[1:]))


@pytest.mark.parametrize(("policy", "credited"), [("all", False), ("random", False), ("q-learning", True)])
def test_rounds_are_credited_where_the_policy_needs_it(
    measuring: Measuring, config: RunConfig, tmp_path: Path, policy: str, credited: bool
) -> None:
    rewards = measuring.rewards(replace(config, participation=policy), RunFolder(tmp_path / "run"))
    assert (rewards is not None) == credited


def test_a_rule_whose_rounds_cannot_be_credited_is_refused(
    measuring: Measuring, config: RunConfig, tmp_path: Path
) -> None:
    settings = replace(config, participation="q-learning", aggregation="stack")
    with pytest.raises(ConfigError, match=r"q-learning: expected aggregation .*frozen-a.*, got stack"):
        measuring.rewards(settings, RunFolder(tmp_path / "run"))


def test_a_deployment_reads_its_validation_set_and_no_organisations(config: RunConfig, tmp_path: Path) -> None:
    record: dict[str, Any] = {"question": "who?", "answer": "nobody", "domain": "common"}
    (tmp_path / "validation.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    deployed = replace(config, data="", validation=str(tmp_path / "validation.jsonl"), coordinator_key="/its/key")
    found = known_data(replace(deployed, organisations=3))
    assert [(record.domain, record.answer) for record in found.validation] == [("common", "nobody")]
    assert found.organisations == ()
    with pytest.raises(ConfigError, match=r"organisations: expected the number .*, got 0"):
        known_data(deployed)


def test_conversations_that_the_base_refuses_are_named_before_anybody_is_asked(
    measuring: Measuring, config: RunConfig, tmp_path: Path
) -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "user", "assistant")]
    for name in ("clinic", "store"):
        lines = [{"question": f"{name} {i}?", "answer": str(i)} for i in range(3)]
        lines += [{"messages": turns}] if name == "clinic" else []
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = known_data(replace(config, data=str(tmp_path)))
    check_turns(measuring.model, found)
    strict = "{% if messages | length > 2 %}{{ raise_exception('roles must alternate') }}{% endif %}"
    with pytest.raises(DataError, match=r"clinic: .*clinic\.jsonl:4: .*roles must alternate"):
        check_turns(replace(measuring.model, tokenizer=byte_tokenizer(strict)), found)


def test_an_order_of_turns_is_tried_once_however_many_organisations_have_it(
    measuring: Measuring, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        lines = [json.dumps({"question": f"{number}, {i}?", "answer": str(i)}) for i in range(3)]
        (tmp_path / f"member-{number}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tried: list[Record] = []
    monkeypatch.setattr(batches, "_texts", lambda _, record: tried.append(record))
    check_turns(measuring.model, replace(known_data(replace(config, data=str(tmp_path))), validation=()))
    assert [record.roles for record in tried] == [("user",)]
