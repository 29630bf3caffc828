"""The genesis in the messages of rounds: whole until a node has answered one that had it, by its digest from then on.

A federation of ten thousand has a genesis of 1.7 MB, and everybody who is asked needs all of it, each round. Whoever
reads a message finds its genesis by digest: in the message, among those that this process has read, or in the folder
where the node keeps those that it has checked.
"""

from pathlib import Path
from typing import Any, Final

from flwr.app import ConfigRecord, RecordDict

from core.canonical import Digest, digest, from_json, raw
from core.errors import FormatError, UnknownGenesisError
from core.genesis import Genesis
from core.messages.codec import QUESTION_BYTES
from core.storage.blobs import Folder, read, write

_RECORD: Final = "genesis"
_known: dict[Digest, Genesis] = {}
"""What this process has read, by digest: a node that hosts many would parse the same one for each of them."""
_MOST_KNOWN: Final = 16


def attached(genesis: Genesis, *, whole: bool) -> dict[str, ConfigRecord]:
    """The records that a message has of its genesis beside its digest."""
    return {_RECORD: ConfigRecord({"json": genesis.shown})} if whole else {}


def genesis_of(content: RecordDict, name: Any, kept: Path | None = None) -> Genesis:
    """The genesis of a message that names it by `name`; `kept` is the folder of those that a node keeps.

    Raises FormatError for one that is malformed or has another digest, UnknownGenesisError for one that is nowhere.
    """
    raw(name)
    record = content.config_records.get(_RECORD)
    data = record.get("json") if record is not None else None
    if record is not None and (not isinstance(data, bytes) or digest("federation", data) != name):
        raise FormatError(f"message: expected the genesis {name}, got another")
    if name not in _known:
        whole = data if isinstance(data, bytes) else found(name, kept)
        genesis = Genesis.from_message(from_json(whole, QUESTION_BYTES))
        if len(_known) >= _MOST_KNOWN:
            del _known[next(iter(_known))]
        _known[name] = genesis
    return _known[name]


def keep(genesis: Genesis, folder: Path) -> None:
    """Keep a genesis that was checked, in place of an earlier state of the same federation."""
    if (place := folder / raw(genesis.digest).hex() / f"{genesis.shown_digest}.json").exists():
        return
    write(place, genesis.shown)
    for other in place.parent.glob("*.json"):
        if other != place:
            Folder(place.parent).remove(other.name)


def found(name: Digest, folder: Path | None) -> bytes:
    """The bytes that `keep` has kept under a digest; raises UnknownGenesisError where there are none."""
    for path in folder.glob(f"*/{name}.json") if folder else ():
        if digest("federation", data := bytes(read(path))) == name:
            return data
    raise UnknownGenesisError(f"genesis {name}: expected it in the message, since it is not known here")
