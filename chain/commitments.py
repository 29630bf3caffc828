"""What a queue carries to a ledger: commitments to one round, public (core.ledger) or private."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from core.canonical import Address, Digest, commitment, digest, to_json
from core.errors import FormatError
from core.ledger import Anchor, RoundCommitment
from core.round_key import RoundKey
from core.rounds import Admitted, RoundRecord, Salts


@dataclass(frozen=True)
class PrivateCommitment:
    """What the members' private chain says of a round, each list ascending by the address it is about.

    Salted digests of the full signed manifests, of the bids, and of what was allocated to each organisation.
    """

    key: RoundKey
    manifests: tuple[Digest, ...]
    bids: tuple[Digest, ...]
    allocations: tuple[Digest, ...]


def private_commitment(record: RoundRecord, salts: Salts) -> PrivateCommitment:
    """What the private chain is told of a record: of each admitted organisation the manifest, its bid, and its weight.

    A salt hides all three; the nouns of their digests (manifest, bid, allocation) keep them apart. Raises FormatError
    when a salt is missing.
    """

    def hidden(digest_of: Callable[[Admitted], Digest]) -> tuple[Digest, ...]:
        return tuple(commitment(_salt(salts, a.organisation), digest_of(a)) for a in record.admitted)

    return PrivateCommitment(
        key=record.key,
        manifests=hidden(lambda a: a.signed.value.digest),
        bids=hidden(lambda a: digest("bid", to_json(asdict(a.signed.value.bid)))),
        allocations=hidden(lambda a: digest("allocation", to_json({"weight": a.weight}))),
    )


Commitment = TypeVar("Commitment", RoundCommitment, PrivateCommitment)


class Recorder(Protocol[Commitment]):
    """What a queue needs of a ledger: `core.ledger.Ledger` has it, and `chain.private.PrivateRounds`."""

    def commit(self, commitment: Commitment) -> Anchor:
        """See `core.ledger.Ledger.commit`."""

    def read(self, key: RoundKey) -> tuple[Commitment, Anchor] | None:
        """See `core.ledger.Ledger.read`."""


def _salt(salts: Salts, organisation: Address) -> bytes:
    if organisation not in salts.updates:
        raise FormatError(f"no salt for the update of {organisation}")
    return bytes.fromhex(salts.updates[organisation])


_KINDS: dict[str, type[Any]] = {"commitment": RoundCommitment, "private": PrivateCommitment}


def tag(commitment: RoundCommitment | PrivateCommitment) -> str:
    """The name under which a commitment stands in a queue's file."""
    return next(name for name, kind in _KINDS.items() if isinstance(commitment, kind))


def parse(entry: dict[str, Any]) -> Any:
    """The commitment in an entry of a queue's file: {tag: fields}. Raises KeyError or TypeError when there is none."""
    ((name, fields),) = entry.items()
    values = {field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()}
    return _KINDS[name](**{**values, "key": RoundKey(**fields["key"])})
