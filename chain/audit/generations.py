"""What opened a lane's generations: signed, at a round that was recorded, for an erasure that the ledger knows.

Every generation is audited, also the rounds that an erasure has left behind; each begins where its parent round ended.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from chain.audit.files import Files, GenerationFile
from chain.audit.ledger import LedgerAudit
from chain.audit.records import Head
from chain.audit.report import Findings, What
from chain.audit.states import States
from core.adapter import AdapterState
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import FoedusError
from core.generations import GenerationRecord, last_round
from core.genesis import Genesis
from core.signed import Signed


@dataclass(frozen=True)
class Closed:
    """Where a round ended: its record, its aggregate and its commitment, None where that is hidden."""

    record: Digest
    aggregate: Digest
    committed: Digest | None


@dataclass
class Generations:
    """The generations of all lanes, and where their rounds ended."""

    genesis: Genesis
    files: Files
    findings: Findings
    opened: Mapping[int, dict[int, Signed[GenerationRecord]]]
    closed: dict[tuple[int, int, int], Closed] = field(default_factory=dict)
    """By lane, generation and round."""
    newest: dict[int, Digest | None] = field(default_factory=dict)
    """The newest record of each lane."""

    @classmethod
    def read(cls, genesis: Genesis, files: Files, findings: Findings) -> "Generations":
        """What the files say; one that cannot be read is a failure, and so is a gap."""
        opened: dict[int, dict[int, Signed[GenerationRecord]]] = {lane: {} for lane in range(len(genesis.lanes))}
        for file in files.generations():
            found = opened.get(file.lane, {})
            with findings.guard(What.GENERATION, file.name, "the canonical form of a signed generation"):
                signed = files.read_signed(file.name, GenerationRecord)
                if file.lane in opened and file.generation == len(found) + 1:
                    found[file.generation] = signed
                else:
                    findings.fail(What.GENERATION, file.name, file.generation, f"generation {len(found) + 1}")
        return cls(genesis, files, findings, opened)

    def last(self, lane: int) -> int:
        """The lane's current generation."""
        return len(self.opened[lane])

    def members(self, lane: int, generation: int) -> tuple[Address, ...]:
        """The organisations of a lane's generation."""
        signed = self.opened[lane].get(generation)
        return signed.value.members if signed else self.genesis.lanes[lane]

    def rounds(self, lane: int, generation: int) -> int:
        """The round that a lane's generation is complete with."""
        signed = self.opened[lane].get(generation)
        return last_round(self.genesis, signed.value if signed else None)

    def begin(self, lane: int, generation: int, states: States, ledger: LedgerAudit) -> tuple[Head, Digest | None]:
        """Where a generation begins, and the commitment that its first round must name."""
        if generation == 0:
            initial, digest = states.initial, self.genesis.digest
            return self._head(lane, 0, digest, initial.digest if initial else None, states), ZERO_DIGEST
        signed = self.opened[lane][generation]
        record, where = signed.value, GenerationFile.of(lane, generation).name
        self.findings.checked["generations"] += 1
        with self.findings.guard(What.SIGNATURE, where, f"a signature of {self.genesis.coordinator}"):
            signed.verified(self.genesis)
        self.findings.expect(What.FILE_NAME, where, (record.lane, record.generation), (lane, generation))
        if (newest := self.newest.get(lane)) is not None:
            self.findings.expect(What.PREVIOUS, where, record.previous, newest)
        self._check_members(record, where)
        if record.rounds > (most := self.genesis.training.most(generation)):
            self.findings.fail(What.ROUNDS, where, f"round {record.rounds}", f"at most round {most}")
        ledger.check_generation(record.opening, where)
        return self._fork(record, where, states)

    def _fork(self, record: GenerationRecord, where: str, states: States) -> tuple[Head, Digest | None]:
        lane = record.lane
        if record.parent_round == 0:
            initial = states.initial
            self.findings.expect(What.PARENT, where, record.parent, self.genesis.digest)
            aggregate = initial.digest if initial else None
            return self._head(lane, record.generation, self.genesis.digest, aggregate, states), ZERO_DIGEST
        closed = self.closed.get((lane, record.parent_generation, record.parent_round))
        if closed is None:
            place = f"round {record.parent_round} of generation {record.parent_generation}"
            self.findings.fail(What.PARENT, where, place, "a round that was recorded")
            head = self._head(lane, record.generation, record.parent, None, states)
            head.round = record.parent_round
            return head, None
        self.findings.expect(What.PARENT, where, record.parent, closed.record)
        head = self._head(lane, record.generation, closed.record, closed.aggregate, states)
        head.round = record.parent_round
        return head, closed.committed

    def _head(self, lane: int, generation: int, parent: Digest, aggregate: Digest | None, states: States) -> Head:
        signed = self.opened[lane].get(generation)
        return Head(
            parent=parent,
            state=_state(aggregate, states),
            aggregate=aggregate,
            previous=signed.value.digest if signed else parent,
            generation=generation,
            members=self.members(lane, generation),
        )

    def _check_members(self, record: GenerationRecord, where: str) -> None:
        """Whoever goes on was there before; nobody comes back."""
        before = self.members(record.lane, record.parent_generation)
        if record.members != tuple(member for member in before if member in record.members):
            self.findings.fail(What.MEMBERS, where, ", ".join(record.members), "some of those before, in their order")


def _state(aggregate: Digest | None, states: States) -> AdapterState | None:
    """A state that was audited already; None when it cannot be read, which was reported then."""
    initial = states.initial
    if aggregate is None:
        return None
    if initial and initial.digest == aggregate:
        return initial
    with suppress(FoedusError):
        return states.artifacts.open(aggregate)
    return None
