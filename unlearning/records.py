"""The records of a request for erasure: read from a file in the formats of the data, known by their content."""

from pathlib import Path

from core import seeds
from core.canonical import Address, Digest
from core.genesis import Genesis
from llm.files import read_records


def read_digests(path: Path) -> tuple[Digest, ...]:
    """The digests of the records in a JSON Lines file, each once, in order. Raises DataError."""
    return tuple(sorted({record.digest for record in read_records(path)}))


def shards_of(genesis: Genesis, organisation: Address, records: tuple[Digest, ...]) -> frozenset[int]:
    """The shards of an organisation that the records are in."""
    shards = len(genesis.lanes_of(organisation))
    return frozenset(seeds.shard_of(record, shards) for record in records)
