"""GenerationRecord: where a lane's history forks, and why; and the lineage that is left.

An erasure moves a lane's head back to an earlier round, from which a new generation grows; where members join or leave,
one grows from the head (core/membership.py). What was recorded before is never rewritten: rounds behind a fork stay
where they are and are no longer the lane's line. The first RoundRecord of a generation names the GenerationRecord as
the one before it, so that its commitment binds both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from core.canonical import ZERO_DIGEST, Address, Digest, address, digest, raw, to_json
from core.errors import FormatError, ObjectionError
from core.genesis import Genesis
from core.ledger import GenerationOpening
from core.membership import check_opening
from core.parsing import parsed
from core.rounds import RoundRecord
from core.signed import CoordinatorStatement, Place, Signed


@dataclass(frozen=True)
class GenerationRecord(CoordinatorStatement):
    """A lane's generation (from 1): it grows from round `parent_round` of `parent_generation` (round 0: the beginning).

    `parent` is the digest of that round's record (the genesis digest for round 0), `previous` that of the lane's newest
    record of any generation. `rounds` is the round that it is complete with, `erasure` the salted digest by which the
    ledger knows why, an erasure or a change of members; `members` go on, in order of address. `membership` is the
    digest of the membership record that opened it, zero where an erasure did.
    """

    struct: ClassVar = "Generation"
    struct_fields: ClassVar = (
        ("genesis", "bytes32"),
        ("lane", "uint32"),
        ("generation", "uint32"),
        ("erasure", "bytes32"),
        ("record", "bytes32"),
    )

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
    membership: Digest = ZERO_DIGEST

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/generation/v1``."""
        return digest("generation", to_json(self.to_dict()))

    @property
    def place(self) -> Place:
        """The lane, and the generation that it opens."""
        return self.lane, self.generation

    @property
    def opening(self) -> GenerationOpening:
        """What a ledger is told of it."""
        return GenerationOpening(
            self.genesis, self.lane, self.generation, self.erasure, self.parent_generation, self.parent_round
        )

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return {
            "genesis": raw(self.genesis),
            "lane": self.lane,
            "generation": self.generation,
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
            raise FormatError(f"malformed generation record: generation {record.generation} grows from {place}")
        if record.rounds < record.parent_round:
            place = f"round {record.parent_round} and ends with round {record.rounds}"
            raise FormatError(f"malformed generation record: generation {record.generation} grows from {place}")
        raw(record.membership)
        return record


def check_members(genesis: Genesis, openings: Sequence[GenerationRecord]) -> None:
    """Check that a lane's members changed as those needed for it have signed; `openings` are of one lane, in order.

    An erasure takes members away. Raises ObjectionError.
    """
    known = {signed.value.digest: signed.value for signed in genesis.memberships}
    before = genesis.lanes[openings[0].lane] if openings else ()
    for opening in openings:
        if opening.membership == ZERO_DIGEST:
            if opening.members != tuple(member for member in before if member in opening.members):
                raise ObjectionError(f"generation {opening.generation}: expected some of those before, got others")
        elif record := known.get(opening.membership):
            check_opening(opening, record, before)
        else:
            raise ObjectionError(f"generation {opening.generation}: expected its membership record, got none")
        before = opening.members


def last_round(genesis: Genesis, opening: GenerationRecord | None) -> int:
    """The round that a lane is complete with under what opened its generation; None is the first."""
    return opening.rounds if opening else genesis.training.rounds


def lineage(
    records: Iterable[Signed[RoundRecord]], generations: Mapping[int, GenerationRecord]
) -> list[Signed[RoundRecord]]:
    """The rounds of one lane that its current generation has grown through, in order.

    `records` are the lane's, of every generation, `generations` what opened them. Below a generation's parent round
    stand the rounds of the generation that it grew from.
    """
    # Attempts below the quorum changed no state, so they are in nobody's line.
    closed = [signed for signed in records if signed.value.admitted]
    generation, until, found = max(generations, default=0), None, list[Signed[RoundRecord]]()
    while True:
        opening = generations.get(generation)
        start = opening.parent_round if opening else 0
        own = [
            signed
            for signed in closed
            if signed.value.generation == generation
            and start < signed.value.round
            and (until is None or signed.value.round <= until)
        ]
        found = sorted(own, key=lambda signed: signed.value.round) + found
        if opening is None:
            return found
        # Rounds of the older generation count up to the fork; its later ones are off the line.
        generation, until = opening.parent_generation, opening.parent_round
