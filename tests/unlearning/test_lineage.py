"""The lineage: a graph of a few nodes, and those of signed histories."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from core.canonical import Address, Digest, digest
from core.errors import ForgeryError, IntegrityError
from core.rounds import Admitted, RoundRecord
from core.signed import Signed
from tests import federation as f
from tests.unlearning.histories import EVERYONE, together
from unlearning.lineage import Label, Lineage

ANN, BOB = Address("0xA"), Address("0xB")


def graph() -> Lineage:
    """Two rounds of Ann and Bob, and a second generation of the lane in which Bob's first update is summed alone.

    The update bob-2 was trained on round-1, so it knows Ann; bob-1 was trained on the genesis.
    """
    parents = {
        "base": (), "genesis": ("base",),
        "ann-1": ("genesis",), "bob-1": ("genesis",), "round-1": ("genesis", "ann-1", "bob-1"),
        "bob-2": ("round-1",), "round-2": ("round-1", "bob-2"),
        "again-1": ("genesis", "bob-1"), "again-2": ("again-1", "bob-2"),
    }  # fmt: skip
    made = {"ann-1": (ANN, 0, 0), "bob-1": (BOB, 0, 0), "bob-2": (BOB, 1, 0)}
    manifests: dict[Any, Any] = {
        update: SimpleNamespace(organisation=who, generation=generation, lane=lane)
        for update, (who, generation, lane) in made.items()
    }
    return Lineage({Digest(node): frozenset(map(Digest, of)) for node, of in parents.items()}, manifests)


def nodes(*names: str) -> frozenset[Digest]:
    return frozenset(map(Digest, names))


def test_descendants_are_the_nodes_and_all_that_descends_from_them() -> None:
    assert graph().descendants(nodes("ann-1")) == nodes("ann-1", "round-1", "bob-2", "round-2", "again-2")
    assert graph().descendants(nodes("again-1")) == nodes("again-1", "again-2")
    assert graph().descendants(nodes("base")) == graph().parents.keys()
    assert graph().descendants(nodes()) == frozenset()


class Counted(Mapping[Digest, frozenset[Digest]]):
    """Parents of nodes that count how often they are read."""

    def __init__(self, parents: Mapping[Digest, frozenset[Digest]]) -> None:
        self.parents, self.read = parents, 0

    def __getitem__(self, node: Digest) -> frozenset[Digest]:
        self.read += 1
        return self.parents[node]

    def __iter__(self) -> Iterator[Digest]:
        return iter(self.parents)

    def __len__(self) -> int:
        return len(self.parents)


def test_what_a_long_line_knows_is_found_in_one_walk() -> None:
    line = [Digest(f"{number:04}") for number in range(500)]
    parents = Counted(dict(zip(line, [frozenset[Digest](), *(frozenset({node}) for node in line)], strict=False)))
    lineage = Lineage(parents, {})
    assert [lineage.knows([node], {line[250]}) for node in line] == [False] * 250 + [True] * 250
    assert parents.read <= 2 * len(line)


def test_updates_by_organisation_lane_and_generation() -> None:
    lineage = graph()
    assert lineage.updates([ANN]) == nodes("ann-1")
    assert lineage.updates([ANN, BOB]) == nodes("ann-1", "bob-1", "bob-2")
    assert lineage.updates_in_lane(BOB, 0) == nodes("bob-1", "bob-2")
    assert lineage.updates_in_lane(BOB, 0, before=1) == nodes("bob-1")
    assert lineage.updates_in_lane(BOB, 1) == frozenset()


@pytest.mark.parametrize(("whole", "expected"), [(True, {"ann-1"}), (False, {"ann-1", "bob-1"})])
def test_an_erasure_is_about_the_erased_and_about_those_who_erased_records(whole: bool, expected: set[str]) -> None:
    attestation: Any = SimpleNamespace(erased=(ANN,), whole=whole, organisation=BOB, lane=0, generation=1)
    assert graph().erased(attestation) == expected


def test_the_first_records_are_clean_until_one_knows_the_updates() -> None:
    line: list[Any] = [SimpleNamespace(digest=node) for node in ("again-1", "again-2", "again-1")]
    assert [record.digest for record in graph().clean(line, nodes("ann-1"))] == ["again-1"]
    assert [record.digest for record in graph().clean(line, nodes("none"))] == ["again-1", "again-2", "again-1"]


@pytest.mark.parametrize(
    ("head", "trained", "label"),
    [
        ("again-1", False, Label.EXACT),
        ("again-2", False, Label.INTERIM),  # bob-2 was trained on a round that knew Ann
        ("again-2", True, Label.APPROXIMATE),
        ("genesis", True, Label.EXACT),
    ],
)
def test_a_label_follows_from_the_ancestors(head: str, trained: bool, label: Label) -> None:
    assert graph().label(nodes(head), nodes("ann-1"), trained=trained) is label


@pytest.mark.parametrize(("trained", "label"), [(True, Label.EXACT_IN_DISTRIBUTION), (False, Label.EXACT)])
def test_what_was_trained_with_secret_noise_is_exact_in_distribution_alone(trained: bool, label: Label) -> None:
    assert graph().label(nodes("again-1"), nodes("ann-1"), trained=trained, private=True) is label
    assert label.clean
    assert not Label.INTERIM.clean
    assert graph().label(nodes("again-2"), nodes("ann-1"), trained=True, private=True) is Label.APPROXIMATE


@pytest.mark.parametrize("head", ["round-1", "round-2"])
def test_a_sum_that_still_has_the_update_has_no_label(head: str) -> None:
    with pytest.raises(IntegrityError, match=f"update ann-1 of {ANN} is in what is served"):
        graph().label(nodes("again-1", head), nodes("ann-1"), trained=False)


def test_an_unknown_node_has_no_ancestors() -> None:
    with pytest.raises(IntegrityError, match="nowhere is in no record of this run"):
        graph().knows(nodes("nowhere"), nodes("ann-1"))


def test_what_was_reaggregated_keeps_the_taint_of_what_it_was_trained_on() -> None:
    history = together(*EVERYONE)
    history.reaggregate(history.plan("coding", "remove"))
    lineage = history.lanes().lineage
    erased = lineage.updates([f.address("coding")])
    assert lineage.knows([history.head(0)], erased)
    assert lineage.label([history.head(0)], erased, trained=False) is Label.INTERIM
    assert lineage.label([history.head(0)], erased, trained=True) is Label.APPROXIMATE


def test_what_is_served_descends_from_the_base_and_the_shared_validation_set() -> None:
    history = together(*EVERYONE)
    genesis, lineage = history.genesis, history.lanes().lineage
    for origin in (genesis.base.digest, genesis.validation, genesis.digest):
        assert lineage.knows([history.head(0)], {origin})
    assert lineage.parents[genesis.digest] == {genesis.base.digest, genesis.validation}


def test_what_still_sums_the_erased_has_no_label() -> None:
    history = together(*EVERYONE)
    lineage = history.lanes().lineage
    with pytest.raises(IntegrityError, match=f"of {f.address('coding')} is in what is served"):
        lineage.label([history.head(0)], lineage.updates([f.address("coding")]), trained=False)


def test_an_update_trained_on_an_erased_adapter_taints_whatever_admits_it() -> None:
    history = together(*EVERYONE)
    stale = history.records[-1].value.digest
    history.reaggregate(history.plan("coding", "replay"))
    history.train("medical", generation=1)
    manifest = f.signed(history.genesis, "financial", generation=1, round=2, parent=stale)
    history.append(0, 1, (Admitted(manifest, 1.0),))
    lineage = history.lanes().lineage
    erased = lineage.updates([f.address("coding")])
    before = history.lines[0][0].value.digest
    assert lineage.label([before], erased, trained=True) is Label.EXACT
    assert lineage.label([history.head(0)], erased, trained=True) is Label.APPROXIMATE


def test_records_of_a_known_lineage_are_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    history = together(*EVERYONE)
    known = history.lanes().lineage
    verified: list[object] = []
    ordinary = Signed.verified
    monkeypatch.setattr(Signed, "verified", lambda s, genesis: (verified.append(s.value), ordinary(s, genesis))[1])
    assert known.extended(history.genesis, history.records) == known
    assert verified == []
    history.reaggregate(history.plan("coding", "remove"))
    verified.clear()
    longer = known.extended(history.genesis, history.records)
    assert [record for record in verified if isinstance(record, RoundRecord)] == [s.value for s in history.lines[0]]
    assert longer == history.lanes().lineage


def test_a_checkpoint_that_no_record_vouches_for_is_refused() -> None:
    history = together(*EVERYONE)
    lineage = history.lanes().lineage
    with pytest.raises(IntegrityError, match="in no record of this run"):
        lineage.label([digest("round", b"other")], lineage.updates([f.address("coding")]), trained=True)
    history.records.pop(0)
    with pytest.raises(IntegrityError, match="is the parent of a node and stands in no record"):
        history.lanes()


def test_a_record_of_another_signer_is_refused() -> None:
    history = together(*EVERYONE)
    record = history.records[0].value
    history.records[0] = record.sign(f.key("medical"), history.genesis.chain)
    with pytest.raises(ForgeryError, match="round record: expected the signature of"):
        history.lanes()
