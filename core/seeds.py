"""Where randomness comes from: H(federation seed, who, when), so that nobody's depends on who else takes part."""

import hashlib
from collections.abc import Sequence

from core.canonical import Address, Digest, domain, raw


def shared(seed: int) -> bytes:
    """The seed of the shared A."""
    return _hash(f"{seed}", "shared-a")


def local(seed: int, organisation: Address, number: int, part: int = 0) -> bytes:
    """The seed of an organisation's training in a round, for its shard `part`: its batches, and its A where drawn."""
    return _hash(f"{seed}", organisation.lower(), f"{number}", *([f"shard-{part}"] if part else []))


def shard_of(record: Digest, shards: int) -> int:
    """The shard that a record is in, 0 to `shards` − 1: by its content alone, so that no other record moves it."""
    drawn = hashlib.sha256(domain("shard") + raw(record)).digest()
    # The bias of a remainder of 64 bits is below 2⁻⁵⁴ for a thousand shards.
    return int.from_bytes(drawn[:8], "big") % shards


def ticket(seed: int, organisation: str, number: int) -> float:
    """A number in [0, 1) that decides whether an organisation, by address or name, is drawn; others do not shift it."""
    return int.from_bytes(_hash(f"{seed}", organisation.lower(), f"{number}", "ticket")[:8], "big") / 2**64


def drawn(seed: int, organisations: Sequence[Address], number: int, fraction: float, least: int = 1) -> list[Address]:
    """Those whose ticket for the round is below the fraction, in order; the `least` lowest when they are fewer."""
    tickets = {address: ticket(seed, address, number) for address in organisations}
    count = max(least, sum(value < fraction for value in tickets.values()))
    # By lowest tickets, so that a larger fraction only ever adds organisations.
    found = set(sorted(organisations, key=lambda address: tickets[address])[:count])
    return [address for address in organisations if address in found]


def from_nonces(nonces: Sequence[Digest]) -> int:
    """The seed of a federation whose members drew it together: the hash of what each has shown, in their order."""
    return as_int(hashlib.sha256(domain("nonces") + b"".join(map(raw, nonces))).digest())


def as_int(seed: bytes) -> int:
    """A seed for generators that take an integer: 53 bits, as many as canonical JSON can hold."""
    return int.from_bytes(seed[:8], "big") >> 11


def _hash(*parts: str) -> bytes:
    return hashlib.sha256(domain("seed") + "\0".join(parts).encode()).digest()
