"""What an erasure will do, computed from the records before anything is touched.

Every method opens a new generation of the lane at its last round that knows nothing of the erased, and goes on from
there in three stretches, of which each method has its own:

    ≤ parent     kept as they are
    ≤ carried    summed again from the updates that are kept, without those of the erased
    ≤ rounds     trained again without the erased

    remove   carries everything                             interim, or exact where the lineage is clean
    repair   carries everything, and adds a calibration     approximate, or exact likewise
    replay   carries nothing                                exact

Records may be erased, too: then the organisation stays, and trains without them. The lane goes back behind the first
round that the organisation was admitted to, for each of its updates may know any of its records.

    shards   replay, in the shards that hold the records, each of which is a lane of the organisation alone
    replay   replay, in whatever lane the organisation learns in

A lane of which nobody is left goes back to its beginning and is not served: with lanes of one that is exact, at once,
by any method.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from core.canonical import Address, Digest
from core.erasures import OF_RECORDS
from core.errors import UsageError
from core.genesis import Genesis, Training
from core.rounds import RoundRecord
from core.storage.run_folder import RunFolder
from unlearning.certificate import read_certificate
from unlearning.lineage import Label, Lineage

_ANY_GENERATION = 2**32


@dataclass(frozen=True)
class Plan:
    """A lane's erasure to be. `organisation` asks; `erased` are all of the lane who must not be known."""

    organisation: Address
    method: str
    lane: int
    erased: frozenset[Address]
    parent: RoundRecord | None
    """The record that the new generation grows from; None is the lane's beginning."""
    carried: int
    rounds: int
    sums: tuple[RoundRecord, ...]
    """The records that are summed again, in order."""
    expected: Label
    doomed: frozenset[Digest]
    """States that nothing will need and that must not be readable any more."""
    unsalted: tuple[RoundRecord, ...]
    """Records whose salts must go too: those that know the erased."""
    holders: tuple[Address, ...]
    """Who was sent a state that knew the erased."""

    @property
    def start(self) -> int:
        """The round that the new generation grows from."""
        return self.parent.round if self.parent else 0


@dataclass(frozen=True)
class Lanes:
    """A run as far as planning needs it.

    `lines` holds the current line of every lane: the records that its newest state is the sum of, in order. `erased`
    are the organisations that were erased before, each with the label that was reached.
    """

    genesis: Genesis
    lineage: Lineage
    records: Sequence[RoundRecord]
    """All that admitted something, of every generation."""
    lines: Sequence[Sequence[RoundRecord]]
    erased: Mapping[Address, Label]
    last: Sequence[int]
    """The round that each lane is complete with."""

    @classmethod
    def read(cls, run: RunFolder) -> Self:
        """A run's lanes, once its records' signatures have been checked; raises ForgeryError, IntegrityError."""
        signed = list(run.records())
        lines = [[s.value for s in run.lineage(lane)] for lane in range(len(run.genesis.lanes))]
        admitting = [s.value for s in signed if s.value.admitted]
        last = [run.last_round(lane) for lane in range(len(run.genesis.lanes))]
        return cls(run.genesis, Lineage.of(run.genesis, signed), admitting, lines, _labels(run), last)

    def remaining(self, lane: int, erased: Collection[Address]) -> tuple[Address, ...]:
        """The members of a lane without the erased."""
        return tuple(member for member in self.genesis.lanes[lane] if member not in erased)


def plans(run: Lanes, organisation: Address, method: str, shards: Collection[int] | None = None) -> tuple[Plan, ...]:
    """The plans to erase an organisation of a run that is complete, one for each of its lanes.

    `shards`: only records, which are in these of its shards. Raises UsageError for a method that there is not, or not
    for this, an organisation that is unknown or already erased as exactly as can be, the last one of the run, and a run
    with rounds to go.
    """
    _check_method(run.genesis, organisation, method, shards)
    lanes = _lanes(run, organisation)
    gone = set(run.erased) | {organisation}
    if shards is not None:
        if organisation in run.erased:
            raise UsageError(f"{run.genesis.names[organisation]} is already erased: it learns nothing any more")
        lanes = tuple(lanes[place] for place in sorted(shards))
    elif not any(run.remaining(index, gone) for index in range(len(run.lines))):
        raise UsageError(f"{organisation} is the last organisation: without it nothing is left to serve")
    return tuple(_plan(run, lane, organisation, method, whole=shards is None) for lane in lanes)


def _plan(run: Lanes, lane: int, organisation: Address, method: str, *, whole: bool) -> Plan:
    erased = frozenset(run.erased) & set(run.genesis.lanes[lane])
    if whole:
        erased |= {organisation}
    updates = run.lineage.updates(erased)
    if not whole:
        updates |= run.lineage.taught(organisation, lane, _ANY_GENERATION)
    line, remaining = run.lines[lane], run.remaining(lane, erased)
    clean = run.lineage.clean(line, updates) if remaining else ()
    parent, last = (clean[-1] if clean else None), (line[-1].round if remaining and line else 0)
    carried, rounds = METHODS[method].reach(run.genesis.training, parent.round if parent else 0, last)
    sums = tuple(record for record in line[len(clean) :] if record.round <= carried)
    _check_quorum(run, remaining, sums, erased)
    return Plan(
        organisation=organisation,
        method=method,
        lane=lane,
        erased=erased,
        parent=parent,
        carried=carried,
        rounds=rounds,
        sums=sums,
        expected=_expected(run, parent, sums, updates, trained=carried < rounds),
        doomed=_doomed(run, lane, clean, sums, updates),
        unsalted=_unsalted(run, lane, updates),
        holders=_holders(run, lane, updates),
    )


@dataclass(frozen=True)
class Method:
    """Whether the rounds behind the parent are summed again, and whether a calibration follows."""

    carries: bool
    calibrates: bool = False

    def reach(self, training: Training, start: int, last: int) -> tuple[int, int]:
        """The last round that is carried over, and the last of all.

        `start` is the parent's round and `last` the lane's newest, 0 where nobody is left.
        """
        if not last:
            return 0, 0
        if not self.carries:
            return start, max(start, training.rounds)
        return last, last + (training.calibration_rounds if self.calibrates else 0)


METHODS = MappingProxyType(
    {
        "remove": Method(carries=True),
        "repair": Method(carries=True, calibrates=True),
        "replay": Method(carries=False),
        "shards": Method(carries=False),
    }
)


def _labels(run: RunFolder) -> dict[Address, Label]:
    """Who was erased, and how exactly in the end: a lane's last certificate speaks of everyone before."""
    found: dict[Address, Label] = {}
    for attestation in (signed.value for signed in run.erasures()):
        if path := run.certificate(attestation):
            label = Label(read_certificate(path.read_bytes()).value.label)
            found |= dict.fromkeys(attestation.erased, label)
    return found


def _check_method(genesis: Genesis, organisation: Address, method: str, shards: Collection[int] | None) -> None:
    if method not in METHODS:
        raise UsageError(f"method is {method!r}, one of {', '.join(METHODS)} wanted")
    if shards is None and method == "shards":
        raise UsageError("method shards erases records: --records FILE wanted, or another method for the organisation")
    if shards is not None and method not in OF_RECORDS:
        raise UsageError(f"method {method} erases whole organisations: shards or replay wanted for records")
    if METHODS[method].calibrates and genesis.rule == "stack":
        raise UsageError(f"method {method} adds rounds, and a stacked adapter grows with each: remove or replay wanted")
    if method == "shards" and any(len(genesis.lanes[lane]) > 1 for lane in genesis.lanes_of(organisation)):
        raise UsageError("method shards needs lanes of one organisation: replay wanted where several learn together")


def _lanes(run: Lanes, organisation: Address) -> tuple[int, ...]:
    """The lanes of an organisation that can be erased from a run that is complete."""
    member = run.genesis.organisation(organisation)
    if member is None:
        raise UsageError(f"organisation {organisation} is not a member of run {run.genesis.run}")
    if run.erased.get(organisation) is Label.EXACT:
        raise UsageError(f"{member.name} is already erased: nothing that is served descends from it")
    for lane in _populated(run):
        reached = run.lines[lane][-1].round if run.lines[lane] else 0
        if reached < (wanted := run.last[lane]):
            raise UsageError(f"run {run.genesis.run} has done {reached} of {wanted} rounds: resume it first")
    return run.genesis.lanes_of(organisation)


def _check_quorum(
    run: Lanes, remaining: Collection[Address], sums: Iterable[RoundRecord], erased: Collection[Address]
) -> None:
    """Whoever remains must be enough, in every round that is summed or trained again."""
    quorum = run.genesis.participation.quorum
    if remaining and len(remaining) < quorum:
        raise UsageError(f"the quorum is {quorum}, and only {len(remaining)} organisations would remain in the lane")
    for record in sums:
        if (left := sum(a.organisation not in erased for a in record.admitted)) < quorum:
            raise UsageError(f"round {record.round} admitted {left} others, a quorum of {quorum} wanted: use replay")


def _populated(run: Lanes) -> list[int]:
    """The lanes that somebody is left in."""
    return [index for index in range(len(run.lines)) if run.remaining(index, set(run.erased))]


def _expected(
    run: Lanes, parent: RoundRecord | None, sums: Iterable[RoundRecord], updates: Set[Digest], *, trained: bool
) -> Label:
    """The label that the plan leads to: what it will make descends from its parent and from what it sums."""
    nodes = [parent.digest] if parent else []
    nodes += [a.signed.value.digest for record in sums for a in record.admitted if a.signed.value.digest not in updates]
    if not run.lineage.knows(nodes, updates):
        return Label.EXACT
    return Label.APPROXIMATE if trained else Label.INTERIM


def _doomed(
    run: Lanes,
    lane: int,
    clean: Sequence[RoundRecord],
    sums: Sequence[RoundRecord],
    updates: Set[Digest],
) -> frozenset[Digest]:
    """The erased updates, every aggregate that knows them, and every update trained on one and not summed again.

    A state that is needed elsewhere is not doomed: what names a state is its content.
    """
    own = [record for record in run.records if record.lane == lane]
    doomed: set[Digest] = set()
    needed: set[Digest] = {record.aggregate for record in clean}
    kept = (a.signed for r in (*clean, *sums) for a in r.admitted)
    needed |= {signed.value.update for signed in kept if signed.value.digest not in updates}
    for record in own:
        if not run.lineage.knows([record.digest], updates):
            continue
        doomed.add(record.aggregate)
        for admitted in record.admitted:
            update = admitted.signed
            if run.lineage.knows([update.value.digest], updates):
                doomed.add(update.value.update)
    needed |= {state for other in run.lines for r in other if r.lane != lane for state in r.states}
    return frozenset(doomed - needed)


def _unsalted(run: Lanes, lane: int, updates: Set[Digest]) -> tuple[RoundRecord, ...]:
    return tuple(r for r in run.records if r.lane == lane and run.lineage.knows([r.digest], updates))


def _holders(run: Lanes, lane: int, updates: Set[Digest]) -> tuple[Address, ...]:
    """Whoever was sent an aggregate of the lane that knew the erased.

    After every round it goes to the members, and what lanes are composed to goes to everyone.
    """
    if not _unsalted(run, lane, updates):
        return ()
    return tuple(o.address for o in run.genesis.organisations)
