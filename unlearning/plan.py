"""The plan of an erasure, computed from the records before anything is touched.

Every method opens a new generation of the lane at its last round that knows nothing of the erased, and goes on from
there in three stretches, whose ends depend on the method:

    ≤ parent         kept as they are
    ≤ reaggregated   aggregated again from the kept updates, without those of the erased
    ≤ rounds         trained again without the erased

    remove   re-aggregates everything                         interim, or exact where the lineage is clean
    repair   re-aggregates everything, and adds calibration   approximate, or exact likewise
    replay   re-aggregates nothing                            exact

A replay of an organisation goes back further where, without it, others would have been asked: what comes out is a run
that it never took part in.

Records may be erased, too: then the organisation stays, and trains without them. The lane goes back behind the first
round that the organisation was admitted to, for each of its updates may know any of its records.

    shards   replay, in the shards that hold the records, each of which is a lane of the organisation alone
    replay   replay, in whatever lane the organisation learns in

A lane without remaining members goes back to its beginning and is not served: with lanes of one that is exact, at once,
by any method.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import takewhile
from types import MappingProxyType
from typing import Self

from core.canonical import Address, Digest
from core.erasures import OF_RECORDS
from core.errors import UsageError
from core.genesis import Genesis, Training
from core.policies import BY_HISTORY, selected
from core.privacy import PrivacyPlan
from core.rounds import RoundRecord
from core.storage.run_folder import RunFolder
from core.update import UpdateManifest
from unlearning.certificate import read_certificate
from unlearning.lineage import Label, Lineage


@dataclass(frozen=True)
class ErasureMethod:
    """Whether the rounds behind the parent are re-aggregated, and whether a calibration follows."""

    reaggregates: bool
    calibrates: bool = False

    def reach(self, training: Training, start: int, last: int) -> tuple[int, int]:
        """The last round that is re-aggregated, and the last of all.

        `start` is the parent's round and `last` the lane's newest, 0 for a lane without members.
        """
        if not last:
            return 0, 0
        if not self.reaggregates:
            return start, max(start, training.rounds)
        return last, last + (training.calibration_rounds if self.calibrates else 0)


METHODS = MappingProxyType(
    {
        "remove": ErasureMethod(reaggregates=True),
        "repair": ErasureMethod(reaggregates=True, calibrates=True),
        "replay": ErasureMethod(reaggregates=False),
        "shards": ErasureMethod(reaggregates=False),
    }
)


@dataclass(frozen=True)
class Lanes:
    """The part of a run that planning needs.

    `lines` holds the current line of every lane: the records that its newest state is the sum of, in order. `erased`
    are the organisations of earlier erasures, each with its label.
    """

    genesis: Genesis
    lineage: Lineage
    records: Sequence[RoundRecord]
    """All that admitted something, of every generation."""
    lines: Sequence[Sequence[RoundRecord]]
    erased: Mapping[Address, Label]
    last: Sequence[int]
    """The round that each lane is complete with."""
    members: Sequence[tuple[Address, ...]]
    """Those that each lane has now."""

    @classmethod
    def read(cls, run: RunFolder) -> Self:
        """A run's lanes, once its records' signatures have been verified; raises ForgeryError, IntegrityError."""
        signed = list(run.records())
        signed_lines = [run.lineage(lane) for lane in range(len(run.genesis.lanes))]
        lines = [[s.value for s in line] for line in signed_lines]
        admitting = [s.value for s in signed if s.value.admitted]
        last = [run.last_round(lane, line) for lane, line in enumerate(signed_lines)]
        erased: dict[Address, Label] = {}
        # In order: a lane's last certificate speaks of every earlier erasure, too.
        for attestation in (s.value for s in run.erasures()):
            if path := run.certificate(attestation):
                label = Label(read_certificate(path.read_bytes()).value.label)
                erased |= dict.fromkeys(attestation.erased, label)
        members = [run.members(lane) for lane in range(len(run.genesis.lanes))]
        return cls(run.genesis, Lineage.of(run.genesis, signed), admitting, lines, erased, last, members)

    def remaining(self, lane: int, erased: Collection[Address]) -> tuple[Address, ...]:
        """The members of a lane without the erased."""
        return tuple(member for member in self.members[lane] if member not in erased)

    def check_complete(self) -> None:
        """Raise UsageError for a run with rounds to go."""
        for lane, line in enumerate(self.lines):
            done = line[-1].round if line else 0
            if self.remaining(lane, self.erased) and done < self.last[lane]:
                raise UsageError(
                    f"run {self.genesis.run}: expected {self.last[lane]} rounds, got {done}: resume it first"
                )

    def check_calibrates(self, lane: int, method: str) -> None:
        """Raise UsageError for a calibration of a lane whose training ended early: its rounds come after the last."""
        done, rounds = self.last[lane], self.genesis.training.rounds
        if METHODS[method].calibrates and done < rounds:
            raise UsageError(
                f"method {method}: expected a run of all {rounds} rounds, got one that ended early with round {done}: "
                "use remove or replay"
            )

    def check_quorum(self, lane: int, records: Iterable[RoundRecord], erased: Collection[Address]) -> None:
        """Raise UsageError when too few remain, in the lane or in a record that would be re-aggregated."""
        quorum, remaining = self.genesis.participation.quorum, self.remaining(lane, erased)
        if remaining and len(remaining) < quorum:
            raise UsageError(
                f"lane {lane}: expected a quorum of {quorum} organisations without the erased, got {len(remaining)}"
            )
        for record in records:
            if (left := sum(a.organisation not in erased for a in record.admitted)) < quorum:
                raise UsageError(
                    f"round {record.round}: expected a quorum of {quorum} without the erased, got {left}: use replay, "
                    "or found with a larger fraction or participation all, so that no round hangs on one member"
                )

    def check_budget(self, lane: int, members: Sequence[Address], rounds: range) -> None:
        """Raise UsageError when the privacy budget of one of a lane's members does not cover more training.

        `rounds` are the numbers of those that the lane is to be trained in.
        """
        asked = (
            {number: may_be_asked(self.genesis, number, members) for number in rounds} if self.genesis.privacy else {}
        )
        told: dict[Address, list[UpdateManifest]] = {}
        for manifest in self.lineage.manifests.values():
            if manifest.lane == lane:
                told.setdefault(manifest.organisation, []).append(manifest)
        for member in members:
            if budget := PrivacyPlan.of(self.genesis, member):
                own = told.get(member, ())
                # What was sent and not admitted is spent as well: the newest ε that it signed for counts it.
                claimed = budget.steps_of(max((manifest.epsilon for manifest in own), default=0.0))
                left = budget.most - max(claimed, sum(manifest.bid.steps for manifest in own))
                numbers = [number for number in rounds if member in asked[number]]
                needed = sum(self.genesis.training.stage(number, budget.steps).steps for number in numbers)
                if needed > left:
                    # Attested first and found out later, the erasure could not be ended.
                    raise UsageError(
                        f"privacy budget of {self.genesis.names[member]}: expected at least {needed} steps left for "
                        f"{len(numbers)} rounds, got {left}: use remove, or found with dp-reserve"
                    )


def may_be_asked(genesis: Genesis, number: int, members: Sequence[Address]) -> Collection[Address]:
    """Those of a lane's members that a round may ask at first: all, where what they did before decides."""
    history = genesis.policy(number) in BY_HISTORY
    return members if history else selected(genesis, members, number, (), {})


def kept_rounds(
    lineage: Lineage,
    genesis: Genesis,
    line: Sequence[RoundRecord],
    remaining: Sequence[Address],
    updates: Set[Digest],
    *,
    alone: bool,
) -> tuple[RoundRecord, ...]:
    """The first rounds of a lane's line that an erasure of these updates keeps: none where no member remains.

    With `alone`, those alone in which the remaining would have been asked likewise without the erased; so it is where
    others' past decides.
    """
    clean = lineage.clean(line, updates) if remaining else ()
    if not alone:
        return clean

    def alike(record: RoundRecord) -> bool:
        asked = record.asked.intersection(remaining)
        return genesis.policy(record.round) in BY_HISTORY or asked == set(
            may_be_asked(genesis, record.round, remaining)
        )

    return tuple(takewhile(alike, clean))


@dataclass(frozen=True)
class Plan:
    """The erasure of a lane, before it is done. `organisation` asks; `erased` are all that must not be known."""

    organisation: Address
    method: str
    lane: int
    erased: frozenset[Address]
    parent: RoundRecord | None
    """The record that the new generation grows from; None is the lane's beginning."""
    reaggregated: int
    """The last round that is re-aggregated."""
    rounds: int
    """The last round of the new generation."""
    records: tuple[RoundRecord, ...]
    """The records that are re-aggregated, in order."""
    expected: Label
    to_destroy: frozenset[Digest]
    """States that nothing will need and that must not be readable any more."""
    salts_to_destroy: tuple[RoundRecord, ...]
    """Records whose salts must go too: those that know the erased."""
    holders: tuple[Address, ...]
    """The organisations that were sent a state that knew the erased."""

    @property
    def start(self) -> int:
        """The round that the new generation grows from."""
        return self.parent.round if self.parent else 0

    @classmethod
    def of(cls, run: Lanes, lane: int, organisation: Address, method: str, *, whole: bool) -> Self:
        """The plan for one lane, of the whole organisation or of records of it; raises UsageError below the quorum."""
        erased = frozenset(run.erased) & set(run.genesis.ever_in(lane))
        if whole:
            erased |= {organisation}
        updates = run.lineage.updates(erased)
        if not whole:
            updates |= run.lineage.updates_in_lane(organisation, lane)
        line, remaining = run.lines[lane], run.remaining(lane, erased)
        # What is trained again is what the remaining would have trained alone, from their first round on.
        alone = whole and not METHODS[method].reaggregates
        clean = kept_rounds(run.lineage, run.genesis, line, remaining, updates, alone=alone)
        parent, last = (clean[-1] if clean else None), (line[-1].round if remaining and line else 0)
        reaggregated, rounds = METHODS[method].reach(run.genesis.training, parent.round if parent else 0, last)
        records = tuple(record for record in line[len(clean) :] if record.round <= reaggregated)
        run.check_quorum(lane, records, erased)
        run.check_budget(lane, remaining, range(reaggregated + 1, rounds + 1))
        knowing = tuple(r for r in run.records if r.lane == lane and run.lineage.knows([r.digest], updates))
        return cls(
            organisation=organisation,
            method=method,
            lane=lane,
            erased=erased,
            parent=parent,
            reaggregated=reaggregated,
            rounds=rounds,
            records=records,
            expected=_expected(run, parent, records, updates, trained=reaggregated < rounds),
            to_destroy=_to_destroy(run, lane, knowing, clean, records, updates),
            salts_to_destroy=knowing,
            # After every round an aggregate goes to the lane's members, and the composition of all lanes to everyone.
            holders=tuple(o.address for o in run.genesis.everyone) if knowing else (),
        )


def plans(run: Lanes, organisation: Address, method: str, shards: Collection[int] | None = None) -> tuple[Plan, ...]:
    """The plans to erase an organisation of a run that is complete, one for each of its lanes.

    `shards`: only records, which are in these of its shards. Raises UsageError for a method that is unknown or not for
    this, an organisation that is unknown or already erased as exactly as can be, the last one of the run, and a run
    with rounds to go.
    """
    check_method(run.genesis, organisation, method, shards)
    member = run.genesis.organisation(organisation)
    if member is None:
        raise UsageError(f"organisation {organisation} is not a member of run {run.genesis.run}")
    label = run.erased.get(organisation)
    if label is not None and (label.clean or shards is not None):
        raise UsageError(f"{member.name} is already erased: nothing of it is left to erase so")
    run.check_complete()
    lanes = run.genesis.lanes_of(organisation)
    if shards is not None:
        lanes = tuple(lanes[shard] for shard in sorted(shards))
    elif not any(run.remaining(lane, {*run.erased, organisation}) for lane in range(len(run.lines))):
        raise UsageError(f"{organisation} is the last organisation: without it nothing is left to serve")
    for lane in lanes:
        run.check_calibrates(lane, method)
    return tuple(Plan.of(run, lane, organisation, method, whole=shards is None) for lane in lanes)


def check_method(genesis: Genesis, organisation: Address, method: str, shards: Collection[int] | None) -> None:
    """Raise UsageError for a method that is unknown, or not for this genesis, organisation or records."""
    if method not in METHODS:
        raise UsageError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if shards is None and method == "shards":
        raise UsageError("method shards erases records: give --records FILE, or use another method")
    if shards is not None and method not in OF_RECORDS:
        raise UsageError(f"method: expected {' or '.join(OF_RECORDS)} to erase records, got {method}")
    if METHODS[method].calibrates and genesis.rule == "stack":
        raise UsageError(f"method {method} adds rounds, and a stacked adapter grows with each: use remove or replay")
    if method == "shards" and any(len(genesis.lanes[lane]) > 1 for lane in genesis.lanes_of(organisation)):
        raise UsageError("method shards needs lanes of one organisation, and several learn together here: use replay")


def _expected(
    run: Lanes, parent: RoundRecord | None, records: Iterable[RoundRecord], updates: Set[Digest], *, trained: bool
) -> Label:
    """The label that the plan leads to: the new state will descend from its parent and from the updates it sums."""
    nodes = [parent.digest] if parent else []
    summed = (a.signed.value.digest for record in records for a in record.admitted)
    nodes += [update for update in summed if update not in updates]
    if not run.lineage.knows(nodes, updates):
        return Label.of_clean(noised=trained and run.genesis.privacy is not None)
    return Label.APPROXIMATE if trained else Label.INTERIM


def _to_destroy(
    run: Lanes,
    lane: int,
    knowing: Iterable[RoundRecord],
    clean: Sequence[RoundRecord],
    reaggregated: Sequence[RoundRecord],
    updates: Set[Digest],
) -> frozenset[Digest]:
    """The erased updates, every aggregate that knows them, and every update trained on one and not re-aggregated."""
    states: set[Digest] = set()
    for record in knowing:
        states.add(record.aggregate)
        manifests = (admitted.signed.value for admitted in record.admitted)
        states |= {manifest.update for manifest in manifests if run.lineage.knows([manifest.digest], updates)}
    # States are named by their content: one that is needed elsewhere, under the same name, must stay.
    needed = {record.aggregate for record in clean}
    kept = (admitted.signed.value for record in (*clean, *reaggregated) for admitted in record.admitted)
    needed |= {manifest.update for manifest in kept if manifest.digest not in updates}
    needed |= {state for line in run.lines for record in line if record.lane != lane for state in record.states}
    return frozenset(states - needed)
