"""A lane's generations: opened by signed records, at recorded rounds, for erasures that the ledger knows.

Every generation is audited, also the rounds that an erasure has left behind; each begins where its parent round ended.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from chain.audit.aggregates import StateAudit
from chain.audit.files import Files, GenerationFile
from chain.audit.ledger import LedgerAudit
from chain.audit.records import Head
from chain.audit.report import Findings, What
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import FoedusError, ObjectionError
from core.generations import GenerationRecord, last_round
from core.genesis import Genesis
from core.membership import check_opening
from core.round_key import RoundKey
from core.rounds import Best
from core.signed import Signed


@dataclass(frozen=True)
class Closed:
    """The end of a round: its record, its aggregate, its commitment (None where salts are missing), the best so far."""

    record: Digest
    aggregate: Digest
    committed: Digest | None
    best: Best | None


@dataclass
class GenerationAudit:
    """The generations of all lanes, and the ends of their rounds."""

    genesis: Genesis
    files: Files
    findings: Findings
    opened: Mapping[int, dict[int, Signed[GenerationRecord]]]
    closed: dict[RoundKey, Closed] = field(default_factory=dict)
    newest: dict[int, Digest | None] = field(default_factory=dict)
    """The newest record of each lane."""

    @classmethod
    def read(cls, genesis: Genesis, files: Files, findings: Findings) -> Self:
        """The generations; a file that cannot be read is a failure, and so is a gap."""
        opened: dict[int, dict[int, Signed[GenerationRecord]]] = {lane: {} for lane in range(len(genesis.lanes))}
        for file in files.generations():
            own = opened.get(file.lane, {})
            with findings.guard(What.GENERATION, file.name, "the canonical form of a signed generation"):
                signed = files.read_signed(file.name, GenerationRecord)
                if file.lane in opened and file.generation == len(own) + 1:
                    own[file.generation] = signed
                else:
                    findings.fail(What.GENERATION, file.name, file.generation, f"generation {len(own) + 1}")
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

    def begin(self, lane: int, generation: int, states: StateAudit, ledger: LedgerAudit) -> tuple[Head, Digest | None]:
        """The head that a generation begins with, and the commitment that its first round must name."""
        if generation == 0:
            return self._first_head(lane, 0, states)
        signed = self.opened[lane][generation]
        record, where = signed.value, GenerationFile.of(lane, generation).name
        self.findings.checked["generations"] += 1
        with self.findings.guard(What.SIGNATURE, where, f"a signature of {self.genesis.coordinator}"):
            signed.verified(self.genesis)
        self.findings.expect(What.FILE_NAME, where, (record.lane, record.generation), (lane, generation))
        if (newest := self.newest.get(lane)) is not None:
            self.findings.expect(What.PREVIOUS, where, record.previous, newest)
        before = self.members(lane, generation - 1)
        if record.membership != ZERO_DIGEST:
            self._check_change(record, before, where)
        elif record.members != tuple(member for member in before if member in record.members):
            # An erasure takes members away, and brings nobody back.
            self.findings.fail(What.MEMBERS, where, ", ".join(record.members), "some of those before, in their order")
        if record.rounds > (most := self.genesis.training.most(generation)):
            self.findings.fail(What.ROUNDS, where, f"round {record.rounds}", f"at most round {most}")
        ledger.check_generation(record.opening, where)
        return self._fork(record, where, states)

    def _check_change(self, record: GenerationRecord, before: tuple[Address, ...], where: str) -> None:
        """A change of members has the signatures that it needs, and goes on from the head to the same last round."""
        known = {signed.value.digest: signed.value for signed in self.genesis.memberships}
        with self.findings.guard(What.MEMBERSHIP, where, "a membership record that opens it"):
            if (change := known.get(record.membership)) is None:
                raise ObjectionError("none")
            check_opening(record, change, before)
        lane, last = record.lane, record.generation - 1
        own = [key.round for key in self.closed if (key.lane, key.generation) == (lane, last)]
        opened = self.opened[lane][last].value if last else None
        place = (opened.parent_generation, opened.parent_round) if opened else (0, 0)
        head = (last, max(own)) if own else place
        self.findings.expect(What.PARENT, where, (record.parent_generation, record.parent_round), head)
        self.findings.expect(What.ROUNDS, where, record.rounds, self.rounds(lane, last))

    def _fork(self, record: GenerationRecord, where: str, states: StateAudit) -> tuple[Head, Digest | None]:
        """The head at the generation's parent round."""
        lane, generation = record.lane, record.generation
        if record.parent_round == 0:
            self.findings.expect(What.PARENT, where, record.parent, self.genesis.digest)
            return self._first_head(lane, generation, states)
        parent = RoundKey(self.genesis.digest, lane, record.parent_generation, record.parent_round)
        if (closed := self.closed.get(parent)) is None:
            got = f"round {parent.round} of generation {parent.generation}"
            self.findings.fail(What.PARENT, where, got, "a round that was recorded")
            head, committed = self._head(lane, generation, record.parent, None, states), None
        else:
            self.findings.expect(What.PARENT, where, record.parent, closed.record)
            head = self._head(lane, generation, closed.record, closed.aggregate, states)
            committed, head.best = closed.committed, closed.best
        head.round = record.parent_round
        return head, committed

    def _first_head(self, lane: int, generation: int, states: StateAudit) -> tuple[Head, Digest]:
        """The head before round 1, and the commitment that stands for none."""
        aggregate = initial.digest if (initial := states.initial) else None
        return self._head(lane, generation, self.genesis.digest, aggregate, states), ZERO_DIGEST

    def _head(self, lane: int, generation: int, parent: Digest, aggregate: Digest | None, states: StateAudit) -> Head:
        signed, state = self.opened[lane].get(generation), None
        if (initial := states.initial) and initial.digest == aggregate:
            state = initial
        elif aggregate is not None:
            # It was audited in its own round, where it was reported if it cannot be read.
            with suppress(FoedusError):
                state = states.artifacts.open(aggregate)
        return Head(
            parent=parent,
            state=state,
            aggregate=aggregate,
            previous=signed.value.digest if signed else parent,
            generation=generation,
            members=self.members(lane, generation),
        )
