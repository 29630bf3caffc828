"""What travels in Flower's messages: the only reader and writer of record keys.

    message        content sent                         content of the reply
    query.bind     question, chain                      registrations (signed), one per hosted organisation
    query.check    question, chain, base                what a dry run came to; or refusal
    query.reveal   registrations (signed) of all        nonce; or refusal
    query.consent  genesis                              consent (signed); or refusal
    query.admission  newcomers, openings                agreement (signed); or refusal
    query.offer    round, payments (and genesis)        offer (signed); or refusal
    query.delete   attestation of an erasure (signed)   receipt (signed); or refusal
    query.records  request to erase records (signed)    which of them are held, which erased; or refusal
    train          task, state (and genesis)            manifest (signed), update, losses if asked; or refusal
    evaluate       task, state (and genesis)            losses; or refusal

Nouns travel as their canonical bytes, so that what was hashed is what was sent: an AdapterState is the data of one
array (of type "safetensors", which Flower carries and never parses), everything else canonical JSON. A message is
addressed to (node, organisation). This module has what the others share: training, queries, refusal.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from core.adapter import AdapterState
from core.canonical import from_json, to_json
from core.composition import Composition
from core.errors import FormatError
from core.parsing import finite
from core.wire import DOWN, Travelling, most_bytes, to_send

QUESTION_BYTES = 16 * 2**20
"""The most bytes of JSON that a coordinator sends: a genesis and a record with some thousand manifests."""
EARLIER_BYTES = 8 * 2**20
"""Of that, of the records that lead from what an organisation was shown to the newest."""
BOUND_BYTES = 64 * 2**10
"""Of the registrations of a deployed node, which takes under 1 kB for one."""
SIMULATED_BOUND_BYTES = 4 * 2**20
"""Of the registrations of a simulation's node, which may host thousands."""
MANIFEST_BYTES = 16 * 2**10
"""Of a signed manifest; an offer, a receipt and a refusal are smaller."""
REFUSAL_BYTES = 2**10
RECORD_BYTES = 80
"""Of one digest in a list of records."""
_SAFETENSORS = "safetensors"
_ROUND = re.compile(r"[0-9]{1,9}")


def pack(served: Travelling | Composition, wire: str = "fp32") -> ArrayRecord:
    """Each state's bytes as one array: no overhead for each tensor, nothing to misread.

    Those of a composition are in the form in which `wire` sends them down.
    """
    states = _going_down(served, wire) if isinstance(served, Composition) else (served,)
    data = zip(array_names(len(states)), (b"".join(state.parts()) for state in states), strict=True)
    return ArrayRecord({name: Array("uint8", (len(found),), _SAFETENSORS, found) for name, found in data})


# A round sends the same composition to everyone who measures it, of however many lanes it is.
@lru_cache(maxsize=1)
def _going_down(served: Composition, wire: str) -> tuple[Travelling, ...]:
    if DOWN[wire] == "fp32":
        return tuple(served.states)
    return tuple(to_send(state, wire) for state in served.states)


def unpack(content: RecordDict, name: str) -> AdapterState:
    """The AdapterState in a record; raises FormatError for anything else."""
    return AdapterState.from_bytes(bytes_of(content, name))


def traffic(state: AdapterState, wire: str) -> float:
    """MiB that a round sends and receives for a state of these shapes, at most."""
    return sum(most_bytes(state.shapes, form) for form in (wire, DOWN[wire])) / 2**20


def release(content: RecordDict) -> None:
    """Let go of a message's arrays: Flower's records stand in reference cycles, which would keep them for long."""
    for record in content.array_records.values():
        record.clear()


def array_names(count: int) -> list[str]:
    """The names of the arrays of so many states."""
    return ["bytes"] if count == 1 else [f"bytes.{number}" for number in range(count)]


def bytes_of(content: RecordDict, name: str, part: str = "bytes") -> memoryview:
    """The bytes of one state in a record, not copied and not yet parsed; raises FormatError."""
    record = content.array_records.get(name)
    if record is None or part not in record:
        raise FormatError(f"message: expected arrays as {name!r}, got none")
    array = record[part]
    if array.stype != _SAFETENSORS:
        raise FormatError(f"{name!r}: expected an array of type {_SAFETENSORS!r}, got {array.stype!r}")
    return memoryview(array.data)


def json_record(value: Mapping[str, Any]) -> ConfigRecord:
    """An object as canonical JSON."""
    return ConfigRecord({"json": to_json(value)})


def json_of(content: RecordDict, name: str, most: int, *names: str) -> dict[str, Any]:
    """The object in a record, of at most so many bytes, with exactly these fields where any are given.

    Raises FormatError for anything else: a field that nobody reads is one that somebody may come to believe in.
    """
    record = content.config_records.get(name)
    data = record.get("json") if record is not None else None
    if not isinstance(data, bytes):
        raise FormatError(f"message: expected JSON as {name!r}, got none")
    value = from_json(data, most)
    if not isinstance(value, dict):
        raise FormatError(f"message: expected an object as {name!r}, got {type(value).__name__}")
    if names and set(value) != set(names):
        raise FormatError(f"message: expected the fields {', '.join(names)} in {name!r}, got {', '.join(value)[:140]}")
    return value


def payments_to_json(paid: Mapping[int, float]) -> dict[str, float]:
    """Payments by round, as JSON has them: with text as keys."""
    return {str(number): amount for number, amount in paid.items()}


def payments_of(paid: Any) -> dict[int, float]:
    """Payments by round; raises FormatError."""
    if not isinstance(paid, dict) or not all(_ROUND.fullmatch(number) for number in paid):
        raise FormatError(f"payments: expected amounts by round, got {paid!r:.140}")
    return {int(number): finite(f"payment of round {number}", amount) for number, amount in paid.items()}
