"""What an erasure will do, and the label that it leads to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from core.canonical import Address, Digest, digest
from core.errors import ForgeryError, IntegrityError, UsageError
from core.rounds import Admitted, RoundRecord
from core.signed import Signed
from tests import federation as f
from unlearning.lineage import Label, Lineage
from unlearning.plan import Lanes, Plan, plans

NAMES = ("coding", "financial", "mathematical", "medical")


class History:
    """Signed records of a federation in which everyone takes part when told to; no model, no store."""

    def __init__(self, lanes: int = 1, rounds: int = 4) -> None:
        members = [m.address for m in f.members()]
        partition = tuple(tuple(members[lane::lanes]) for lane in range(lanes))
        self.genesis = f.genesis(lanes=partition, training=replace(f.genesis().training, rounds=rounds))
        self.lines: list[list[Signed[RoundRecord]]] = [[] for _ in range(lanes)]
        self.records: list[Signed[RoundRecord]] = []

    def train(self, *names: str, lane: int = 0, generation: int = 0, nonce: str = "") -> RoundRecord:
        """A round that admits these."""
        number, parent = len(self.lines[lane]) + 1, self.head(lane)
        signed = [
            f.signed(
                self.genesis, name, lane=lane, generation=generation, round=number, parent=parent,
                update=digest("adapter", f"{name} {generation} {number}".encode()),
                nonce=digest("nonce", f"{name} {generation} {number} {nonce}".encode()),
            )
            for name in names
        ]  # fmt: skip
        return self.append(lane, generation, tuple(Admitted(s, 1 / len(names)) for s in signed))

    def append(self, lane: int, generation: int, admitted: tuple[Admitted, ...]) -> RoundRecord:
        """A round that admits these updates, whosever place they name."""
        number, parent = len(self.lines[lane]) + 1, self.head(lane)
        record = RoundRecord(
            self.genesis.digest, lane, generation, number, 1, parent, parent, "frozen-a", admitted, (),
            digest("adapter", f"{lane} {generation} {number}".encode()),
        )  # fmt: skip
        signed = record.sign(f.COORDINATOR, self.genesis.chain)
        self.lines[lane].append(signed)
        self.records.append(signed)
        return record

    def head(self, lane: int) -> Digest:
        return self.lines[lane][-1].value.digest if self.lines[lane] else self.genesis.digest

    def carry(self, made: Plan) -> None:
        """What `made` does to the records: cut the line, and sum again without the erased."""
        del self.lines[made.lane][made.start :]
        for record in made.sums:
            kept = tuple(a for a in record.admitted if a.organisation not in made.erased)
            self.append(made.lane, record.generation + 1, kept)

    def lanes(self, erased: Mapping[Address, Label] | None = None) -> Lanes:
        lines = [[signed.value for signed in line] for line in self.lines]
        lineage = Lineage.of(self.genesis, self.records)
        last = [max(self.genesis.training.rounds, len(line)) for line in lines]
        return Lanes(self.genesis, lineage, [s.value for s in self.records], lines, erased or {}, last)

    def plan(self, name: str, method: str, **erased: Label) -> Plan:
        (made,) = plans(self.lanes({f.address(n): label for n, label in erased.items()}), f.address(name), method)
        return made


def together(*rounds: Sequence[str]) -> History:
    history = History(rounds=len(rounds))
    for names in rounds:
        history.train(*names)
    return history


def names(addresses: frozenset[Address] | Sequence[Address]) -> set[str]:
    return {name for name in NAMES if f.address(name) in addresses}


EVERYONE = (NAMES, NAMES, NAMES, NAMES)
LATE = (NAMES[1:], NAMES[1:], NAMES, NAMES)
LAST = (NAMES[1:], NAMES[1:], NAMES[1:], NAMES)


@pytest.mark.parametrize(
    ("rounds", "method", "start", "carried", "last", "label"),
    [
        (EVERYONE, "remove", 0, 4, 4, Label.INTERIM),
        (EVERYONE, "repair", 0, 4, 12, Label.APPROXIMATE),
        (EVERYONE, "replay", 0, 0, 4, Label.EXACT),
        (LATE, "remove", 2, 4, 4, Label.INTERIM),
        (LATE, "repair", 2, 4, 12, Label.APPROXIMATE),
        (LATE, "replay", 2, 2, 4, Label.EXACT),
        (LAST, "remove", 3, 4, 4, Label.EXACT),
        (LAST, "repair", 3, 4, 12, Label.EXACT),  # the others' updates of the last round: trained on a clean one
        (LAST, "replay", 3, 3, 4, Label.EXACT),
    ],
)
def test_the_label_follows_from_the_lineage_alone(
    rounds: Sequence[Sequence[str]], method: str, start: int, carried: int, last: int, label: Label
) -> None:
    made = together(*rounds).plan("coding", method)
    assert (made.start, made.carried, made.rounds, made.expected) == (start, carried, last, label)
    assert [record.round for record in made.sums] == list(range(start + 1, carried + 1))


def test_doomed_is_what_reveals_the_erased_and_nothing_that_is_needed() -> None:
    history = together(*LATE)
    replay, remove = (history.plan("coding", method) for method in ("replay", "remove"))
    aggregates = {signed.value.aggregate for signed in history.records[2:]}
    own = {digest("adapter", f"coding 0 {n}".encode()) for n in (3, 4)}
    tainted = {digest("adapter", f"{name} 0 4".encode()) for name in NAMES[1:]}
    assert replay.doomed == aggregates | own | tainted
    assert remove.doomed == aggregates | own
    assert [record.round for record in replay.unsalted] == [3, 4] == [record.round for record in remove.unsalted]


def test_a_lane_of_one_goes_back_to_its_beginning_and_is_exact_by_any_method() -> None:
    history = History(lanes=4)
    for _ in range(4):
        for lane, (address,) in enumerate(history.genesis.lanes):
            history.train(next(n for n in NAMES if f.address(n) == address), lane=lane)
    for method in ("remove", "repair", "replay"):
        made = history.plan("coding", method)
        assert (made.parent, made.carried, made.rounds, made.sums, made.expected) == (None, 0, 0, (), Label.EXACT)
        assert len(made.doomed) == 8


def test_after_a_removal_a_replay_goes_back_behind_everyone_erased() -> None:
    history = together(NAMES[1:], NAMES[:3], NAMES, NAMES)  # coding joins in round 2, medical learns from round 1
    first = history.plan("coding", "remove")
    history.carry(first)
    made = history.plan("financial", "replay", coding=Label.INTERIM)
    assert (made.start, made.expected, names(made.erased)) == (0, Label.EXACT, {"coding", "financial"})


def test_an_interim_erasure_may_be_made_exact_and_an_exact_one_not_again() -> None:
    history = together(*EVERYONE)
    history.carry(history.plan("coding", "remove"))
    assert history.plan("coding", "replay", coding=Label.INTERIM).expected is Label.EXACT
    with pytest.raises(UsageError, match="coding is already erased"):
        history.plan("coding", "replay", coding=Label.EXACT)


def test_what_was_carried_keeps_the_taint_of_what_it_was_trained_on() -> None:
    history = together(*EVERYONE)
    history.carry(history.plan("coding", "remove"))
    lineage = history.lanes().lineage
    erased = lineage.updates([f.address("coding")])
    assert lineage.knows([history.head(0)], erased)
    assert lineage.label([history.head(0)], erased, trained=False) is Label.INTERIM
    assert lineage.label([history.head(0)], erased, trained=True) is Label.APPROXIMATE


def test_what_is_served_descends_from_the_base_and_the_set_that_nobody_owns() -> None:
    history = together(*EVERYONE)
    genesis, lineage = history.genesis, history.lanes().lineage
    found = lineage.ancestors([history.head(0)])
    assert {genesis.base.digest, genesis.validation, genesis.digest} <= found
    assert lineage.parents[genesis.digest] == {genesis.base.digest, genesis.validation}


def test_what_still_sums_the_erased_has_no_label() -> None:
    history = together(*EVERYONE)
    lineage = history.lanes().lineage
    with pytest.raises(IntegrityError, match=f"of {f.address('coding')} is in what is served"):
        lineage.label([history.head(0)], lineage.updates([f.address("coding")]), trained=False)


def test_an_update_trained_on_an_erased_adapter_taints_whatever_admits_it() -> None:
    history = together(*EVERYONE)
    stale = history.records[-1].value.digest
    history.carry(history.plan("coding", "replay"))
    history.train("medical", generation=1)
    manifest = f.signed(history.genesis, "financial", generation=1, round=2, parent=stale)
    history.append(0, 1, (Admitted(manifest, 1.0),))
    lineage = history.lanes().lineage
    erased = lineage.updates([f.address("coding")])
    before = history.lines[0][0].value.digest
    assert lineage.label([before], erased, trained=True) is Label.EXACT
    assert lineage.label([history.head(0)], erased, trained=True) is Label.APPROXIMATE


def test_a_checkpoint_that_no_record_vouches_for_is_refused() -> None:
    history = together(*EVERYONE)
    lineage = history.lanes().lineage
    with pytest.raises(IntegrityError, match="in no record of this run"):
        lineage.label([digest("round", b"other")], lineage.updates([f.address("coding")]), trained=True)
    history.records.pop(0)
    with pytest.raises(IntegrityError, match="is the parent of something and stands in no record"):
        history.lanes()


def test_a_record_of_another_signer_is_refused() -> None:
    history = together(*EVERYONE)
    record = history.records[0].value
    history.records[0] = record.sign(f.key("medical"), history.genesis.chain)
    with pytest.raises(ForgeryError, match="not by the coordinator"):
        history.lanes()


@pytest.mark.parametrize(
    ("name", "method", "error"),
    [
        ("coding", "forgive", "method is 'forgive', one of remove, repair, replay, shards wanted"),
        ("nobody", "remove", "is not a member of run example"),
    ],
)
def test_bad_input(name: str, method: str, error: str) -> None:
    history = together(*EVERYONE)
    with pytest.raises(UsageError, match=error):
        plans(history.lanes(), f.key(name).address, method)


def test_a_run_with_rounds_to_go_is_refused() -> None:
    history = History(rounds=5)
    history.train(*NAMES)
    with pytest.raises(UsageError, match="has done 1 of 5 rounds: resume it first"):
        history.plan("coding", "remove")


def test_the_last_organisation_is_refused() -> None:
    history = together(*EVERYONE)
    others = dict.fromkeys(NAMES[1:], Label.EXACT)
    history.carry(history.plan("medical", "remove", **dict.fromkeys(NAMES[1:3], Label.EXACT)))
    with pytest.raises(UsageError, match="is the last organisation"):
        history.plan("coding", "remove", **others)


class Sliced(History):
    """Each organisation alone in two lanes, one for each shard of its records; two rounds are done."""

    def __init__(self) -> None:
        super().__init__(rounds=2)
        members = [m.address for m in f.members()]
        self.genesis = replace(self.genesis, lanes=tuple((member,) for member in members for _ in range(2)))
        self.lines = [[] for _ in self.genesis.lanes]
        for lane, (member,) in enumerate(self.genesis.lanes * 2):
            name = next(name for name in NAMES if f.address(name) == member)
            self.train(name, lane=lane % len(self.lines), nonce=f"{lane}")

    def of(self, name: str) -> tuple[int, ...]:
        return self.genesis.lanes_of(f.address(name))


def test_records_are_erased_from_the_lanes_of_their_slices_only() -> None:
    history = Sliced()
    first, second = history.of("coding")
    assert second == first + 1
    (made,) = plans(history.lanes(), f.address("coding"), "shards", {1})
    assert (made.lane, made.parent, made.carried, made.rounds, made.erased) == (second, None, 0, 2, frozenset())
    assert made.expected is Label.EXACT
    own = [signed.value for signed in history.lines[second]]
    assert [record.digest for record in made.unsalted] == [record.digest for record in own]
    assert [plan.lane for plan in plans(history.lanes(), f.address("coding"), "shards", {0, 1})] == [first, second]


def test_a_state_that_another_slice_has_too_is_not_doomed() -> None:
    history = Sliced()
    (made,) = plans(history.lanes(), f.address("coding"), "shards", {1})
    update = history.lines[made.lane][0].value.admitted[0].signed.value.update
    twin = history.lines[history.of("coding")[0]][0].value.admitted[0].signed.value.update
    assert update == twin  # named by its round alone here, as the zero of shards without records is
    assert update not in made.doomed


def test_a_whole_organisation_is_erased_from_all_its_lanes() -> None:
    history = Sliced()
    made = plans(history.lanes(), f.address("coding"), "remove")
    assert [(plan.lane, plan.rounds, plan.expected) for plan in made] == [
        (lane, 0, Label.EXACT) for lane in history.of("coding")
    ]
    assert all(plan.erased == {f.address("coding")} for plan in made)


def test_records_of_who_learns_with_others_are_erased_by_a_replay_behind_its_first_round() -> None:
    history = together(*LATE)
    (made,) = plans(history.lanes(), f.address("coding"), "replay", {0})
    assert (made.start, made.carried, made.rounds, made.erased) == (2, 2, 4, frozenset())
    assert made.expected is Label.EXACT
    assert made.doomed == history.plan("coding", "replay").doomed


@pytest.mark.parametrize(
    ("method", "shards", "error"),
    [
        ("shards", None, "method shards erases records"),
        ("remove", {0}, "method remove erases whole organisations: shards or replay wanted"),
        ("repair", {0}, "method repair erases whole organisations"),
        ("shards", {0}, "replay wanted where several learn together"),
    ],
)
def test_a_method_that_is_not_for_this_is_refused(method: str, shards: set[int] | None, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        plans(together(*EVERYONE).lanes(), f.address("coding"), method, shards)


def test_records_of_who_is_erased_are_erased_already() -> None:
    lanes = together(*EVERYONE).lanes({f.address("coding"): Label.INTERIM})
    with pytest.raises(UsageError, match="coding is already erased"):
        plans(lanes, f.address("coding"), "replay", {0})
