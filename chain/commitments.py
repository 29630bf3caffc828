"""Commitments to a round, as queues carry them to a ledger: public (core.ledger) or private."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from core.canonical import Digest, commitment, digest, salt_bytes, to_json
from core.errors import FormatError
from core.ledger import Anchor, RoundCommitment
from core.parsing import parsed
from core.round_key import RoundKey
from core.rounds import Admitted, RoundRecord, Salts


@dataclass(frozen=True)
class PrivateCommitment:
    """A round on the members' private chain: salted digests of the full manifests, the bids and the weights.

    Each list is in the order of the organisations' addresses.
    """

    key: RoundKey
    manifests: tuple[Digest, ...]
    bids: tuple[Digest, ...]
    allocations: tuple[Digest, ...]


def private_commitment(record: RoundRecord, salts: Salts) -> PrivateCommitment:
    """The private commitment to a record: manifest, bid and weight of each admitted organisation.

    One salt hides all three; the nouns of their digests (manifest, bid, allocation) keep them apart. Raises FormatError
    when a salt is missing.
    """
    if missing := [a.organisation for a in record.admitted if a.organisation not in salts.updates]:
        raise FormatError(f"{record.key}: expected a salt for the update of {missing[0]}, got none")

    def hidden(digest_of: Callable[[Admitted], Digest]) -> tuple[Digest, ...]:
        return tuple(commitment(salt_bytes(salts.updates[a.organisation]), digest_of(a)) for a in record.admitted)

    return PrivateCommitment(
        key=record.key,
        manifests=hidden(lambda a: a.signed.value.digest),
        bids=hidden(lambda a: digest("bid", to_json(asdict(a.signed.value.bid)))),
        allocations=hidden(lambda a: digest("allocation", to_json({"weight": a.weight, "factor": a.factor}))),
    )


Commitment = TypeVar("Commitment", RoundCommitment, PrivateCommitment)


class Recorder(Protocol[Commitment]):
    """The part of a ledger that a queue needs, of `core.ledger.Ledger` as of `chain.private.PrivateRounds`."""

    def commit(self, commitment: Commitment) -> Anchor:
        """See `core.ledger.Ledger.commit`."""

    def read(self, key: RoundKey) -> tuple[Commitment, Anchor] | None:
        """See `core.ledger.Ledger.read`."""


_KINDS: dict[str, type[Any]] = {"commitment": RoundCommitment, "private": PrivateCommitment}


def tag(commitment: RoundCommitment | PrivateCommitment) -> str:
    """The name of a commitment's kind in a queue's file."""
    return next(name for name, kind in _KINDS.items() if isinstance(commitment, kind))


def parse(entry: dict[str, Any]) -> Any:
    """What an entry of a queue's file holds: a commitment, {tag: fields}, or a round's key with its anchor.

    Raises FormatError, AttributeError, KeyError, TypeError or ValueError for an entry of anything else.
    """
    if set(entry) == {"key", "anchor"}:
        return RoundKey.from_dict(entry["key"]), parsed(Anchor, entry["anchor"], {})
    ((name, fields),) = entry.items()
    # JSON has lists only, and a commitment is compared and hashed.
    lists = dict.fromkeys(("manifests", "bids", "allocations"), tuple)
    return parsed(_KINDS[name], fields, {"key": RoundKey.from_dict, **lists})
