"""Requests to erase: the file that an organisation signed, or what the settings of a simulation ask for."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

from core import keys, seeds
from core.canonical import Address, Digest, from_json
from core.config import RunConfig
from core.erasures import OpenedRequest
from core.errors import ConfigError, UsageError
from core.genesis import Genesis
from core.membership import Leave
from core.signed import Signed
from core.storage.blobs import read
from llm.files import read_records
from llm.records import Record

LARGEST_REQUEST = 16 * 2**20
"""Bytes of a request's file; a record takes 69."""


def request_of(config: RunConfig, genesis: Genesis) -> OpenedRequest:
    """The request that the settings of an erasure name; its signature is checked when it is carried out.

    Raises UsageError or FormatError for a file that is none, DataError for records that are none, ConfigError where an
    organisation with a key of its own has signed nothing.
    """
    if config.request:
        return read_request(Path(config.request))
    return derived_request(config, genesis, read_digests(Path(config.records)) if config.records else ())


def derived_request(config: RunConfig, genesis: Genesis, records: Collection[Digest]) -> OpenedRequest:
    """The request of a simulation's organisation, or for some of its records, signed by its derived key.

    Raises UsageError for one that is no member, ConfigError for one with a key of its own.
    """
    member = genesis.named(config.organisation)
    if not member.derived:
        raise ConfigError(
            f"request: expected the file that {member.name} has signed (foedus request), got none: its key is its own"
        )
    key, today = keys.derive(config.seed, member.name), datetime.now(UTC).date()
    return OpenedRequest.of(key, genesis, config.method, records, config.basis, today)


def leave_of(config: RunConfig, genesis: Genesis) -> Signed[Leave]:
    """The leave that the settings name; its signature is checked when it is carried out.

    Raises UsageError or FormatError for a file that is none, ConfigError as `request_of` does.
    """
    if config.request:
        try:
            return Signed.parse(Leave, from_json(read(Path(config.request), LARGEST_REQUEST)))
        except OSError as error:
            what = "a file of `foedus members sign-leave`"
            raise UsageError(f"request {config.request}: expected {what}, got {error.strerror}") from error
    member = genesis.named(config.organisation)
    if not member.derived:
        raise ConfigError(f"request: expected the file that {member.name} has signed, got none: its key is its own")
    return Leave(genesis.digest, member.address).sign(keys.derive(config.seed, member.name), genesis.chain)


def read_request(path: Path) -> OpenedRequest:
    """The request in a file; raises UsageError when it cannot be read, FormatError when it is none."""
    try:
        return OpenedRequest.from_dict(from_json(read(path, LARGEST_REQUEST)))
    except OSError as error:
        raise UsageError(f"request {path}: expected a file of `foedus request`, got {error.strerror}") from error


def read_digests(path: Path) -> tuple[Digest, ...]:
    """The digests of the records in a JSON Lines file, each once, in order. Raises DataError."""
    return digests_of(read_records(path))


def digests_of(records: Iterable[Record]) -> tuple[Digest, ...]:
    """The digests of some records, each once, in order."""
    return tuple(sorted({record.digest for record in records}))


def shards_of(genesis: Genesis, organisation: Address, records: Collection[Digest]) -> frozenset[int] | None:
    """The shards of an organisation that the records are in; None for no records, which is the whole organisation.

    Raises UsageError for an organisation that is no member.
    """
    shards = len(genesis.lanes_of(genesis.named(organisation).address))
    return frozenset(seeds.shard_of(record, shards) for record in records) or None
