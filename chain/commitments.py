"""What a queue carries to a ledger: commitments to one round, public (core.ledger) or private."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from core.canonical import Digest
from core.ledger import Anchor, RoundCommitment, RoundKey


@dataclass(frozen=True)
class PrivateCommitment:
    """What the members' private chain says of a round, each list ascending by the address it is about.

    Salted digests of the full signed manifests, of the bids, and of what was allocated to each organisation.
    """

    key: RoundKey
    manifests: tuple[Digest, ...]
    bids: tuple[Digest, ...]
    allocations: tuple[Digest, ...]


Commitment = TypeVar("Commitment", RoundCommitment, PrivateCommitment)


class Recorder(Protocol[Commitment]):
    """What a queue needs of a ledger: `core.ledger.Ledger` has it, and `chain.private.PrivateRounds`."""

    def commit(self, commitment: Commitment) -> Anchor:
        """See `core.ledger.Ledger.commit`."""

    def read(self, key: RoundKey) -> tuple[Commitment, Anchor] | None:
        """See `core.ledger.Ledger.read`."""


_KINDS: dict[str, type[Any]] = {"commitment": RoundCommitment, "private": PrivateCommitment}


def tag(commitment: RoundCommitment | PrivateCommitment) -> str:
    """The name under which a commitment stands in a queue's file."""
    return next(name for name, kind in _KINDS.items() if isinstance(commitment, kind))


def parse(entry: dict[str, Any]) -> Any:
    """The commitment in an entry of a queue's file: {tag: fields}. Raises KeyError or TypeError when there is none."""
    ((name, fields),) = entry.items()
    values = {field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()}
    return _KINDS[name](**{**values, "key": RoundKey(**fields["key"])})
