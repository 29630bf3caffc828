"""GenerationRecord: where a lane's history forks, and why; and the lineage that is left.

An erasure moves a lane's head back to an earlier round, from which a new generation grows. What was recorded before is
never rewritten: the rounds behind the fork stay where they are and are no longer the lane's line. The first RoundRecord
of a generation names the GenerationRecord as the one before it, so that its commitment binds both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from core.canonical import Address, Digest, address, digest, raw, to_json
from core.errors import ForgeryError, FormatError
from core.keys import Domain, Fields, Key, Signature, signer
from core.ledger import GenerationOpening
from core.parsing import parsed
from core.rounds import Genesis, SignedRecord

_GENERATION: Fields = (
    ("genesis", "bytes32"),
    ("lane", "uint32"),
    ("generation", "uint32"),
    ("erasure", "bytes32"),
    ("record", "bytes32"),
)


@dataclass(frozen=True)
class GenerationRecord:
    """A lane's generation (from 1): it grows from round `parent_round` of `parent_generation` (round 0: the beginning).

    `parent` is the digest of that round's record (the genesis digest for round 0), `previous` that of the lane's newest
    record of any generation. `rounds` is the round that it is complete with, `erasure` the salted digest by which the
    ledger knows why; `members` go on, in order of address.
    """

    genesis: Digest
    lane: int
    generation: int
    parent_generation: int
    parent_round: int
    parent: Digest
    previous: Digest
    rounds: int
    erasure: Digest
    members: tuple[Address, ...]

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/generation/v1``."""
        return digest("generation", to_json(self.to_dict()))

    @property
    def opening(self) -> GenerationOpening:
        """What a ledger is told of it."""
        return GenerationOpening(
            self.genesis, self.lane, self.generation, self.erasure, self.parent_generation, self.parent_round
        )

    def sign(self, key: Key, domain: Domain) -> "SignedGeneration":
        """Sign as coordinator."""
        return SignedGeneration(self, key.sign(domain, "Generation", _GENERATION, self._message()))

    def _message(self) -> dict[str, Any]:
        place = {"lane": self.lane, "generation": self.generation}
        return place | {
            "genesis": raw(self.genesis),
            "erasure": raw(self.erasure),
            "record": raw(self.digest),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self) | {"members": list(self.members)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError, also for a generation that grows from none before it."""
        record = parsed(cls, data, {"members": lambda v: tuple(address(member) for member in v)})
        if not 0 <= record.parent_generation < record.generation or record.parent_round < 0:
            place = f"round {record.parent_round} of generation {record.parent_generation}"
            raise FormatError(f"malformed GenerationRecord: generation {record.generation} grows from {place}")
        if record.rounds < record.parent_round:
            place = f"round {record.parent_round} and ends with round {record.rounds}"
            raise FormatError(f"malformed GenerationRecord: generation {record.generation} grows from {place}")
        return record


def last_round(genesis: Genesis, opening: GenerationRecord | None) -> int:
    """The round that a lane is complete with under what opened its generation; None is the first."""
    return opening.rounds if opening else genesis.training.rounds


@dataclass(frozen=True)
class SignedGeneration:
    """A GenerationRecord and the coordinator's signature."""

    record: GenerationRecord
    signature: Signature

    def verified(self, genesis: Genesis) -> GenerationRecord:
        """The record; raises ForgeryError when it is not this federation's coordinator who signed it."""
        record = self.record
        if record.genesis != genesis.digest:
            raise ForgeryError(f"generation belongs to federation {record.genesis}, {genesis.digest} wanted")
        by = signer(self.signature, genesis.chain, "Generation", _GENERATION, record._message())
        if by != genesis.coordinator:
            raise ForgeryError(f"generation {record.generation} is signed by {by}, not by the coordinator")
        return record

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"record": self.record.to_dict(), "signature": self.signature}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {"record": GenerationRecord.from_dict})


def lineage(records: Iterable[SignedRecord], generations: Mapping[int, GenerationRecord]) -> list[SignedRecord]:
    """The rounds of one lane that its current generation has grown through, in order.

    `records` are the lane's, of every generation, `generations` what opened them. Below a generation's parent round
    stand the rounds of the generation that it grew from.
    """
    closed = [signed for signed in records if signed.record.admitted]
    generation, until, found = max(generations, default=0), None, list[SignedRecord]()
    while True:
        opening = generations.get(generation)
        start = opening.parent_round if opening else 0
        own = [
            signed
            for signed in closed
            if signed.record.generation == generation
            and start < signed.record.round
            and (until is None or signed.record.round <= until)
        ]
        found = sorted(own, key=lambda signed: signed.record.round) + found
        if opening is None:
            return found
        generation, until = opening.parent_generation, opening.parent_round
