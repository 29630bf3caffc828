"""Foreign bytes made from good ones: some bytes changed, some values of the JSON replaced, or another encoding."""

import json
from random import Random
from typing import Any

from core.canonical import to_json
from core.errors import FormatError

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**32,
    2**53 - 1,
    2**53,
    -(10**30),
    1e308,
    -1.7e308,
    5e-324,
    0.5,
    "",
    "0x",
    "0x" + "11" * 20,
    "0x" + "11" * 32,
    "0x" + "00" * 32,
    "0x" + "11" * 64 + "1b",
    "\x1b[2J\u202e",
    "é" * 100,
    "a" * 5000,
    "NaN",
    [],
    {},
    [[]],
    {"": {}},
    [None] * 200,
)
ODD_BYTES: tuple[bytes, ...] = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b'"',
    b"\\",
    b"[" * 40,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 50,
    b"1" * 5000,
    b"1e999",
    b"NaN",
    b"-Infinity",
    b'"\\ud800"',
    ('["\u2200",' + "[" * 50_000 + "]" * 50_000 + "]").encode("utf-16-le"),
)


def mutated(data: bytes, random: Random) -> bytes:
    """The bytes after one to four changes."""
    for _ in range(random.randint(1, 4)):
        data = random.choice((_changed_bytes, _changed_json, _changed_json, _changed_json))(data, random)
    return data


def _changed_bytes(data: bytes, random: Random) -> bytes:
    start, end = sorted(random.randint(0, len(data)) for _ in range(2))
    kind = random.randrange(6)
    if kind == 0 and data:
        at = random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:start] + data[end:]
    if kind == 2:
        return data[:end] + data[start:]
    if kind == 3:
        return data[:start] + random.choice(ODD_BYTES) + data[start:]
    if kind == 4:
        return data.decode("utf-8", "replace").encode(random.choice(("utf-16", "utf-16-le", "utf-32-be", "utf-8-sig")))
    return random.choice(ODD_BYTES)


def _changed_json(data: bytes, random: Random) -> bytes:
    """The canonical JSON of what `data` says, with one value replaced, dropped, doubled or renamed."""
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError):
        return _changed_bytes(data, random)
    if not (places := list(_places(value))):
        return _changed_bytes(data, random)
    holder, key = random.choice(places)
    kind = random.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[str(key) + random.choice(("", "x", "\x00"))] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.append(holder[key])
    elif kind == 3:
        other, at = random.choice(places)
        holder[key] = json.loads(json.dumps(other.get(at) if isinstance(other, dict) else at))
    else:
        holder[key] = random.choice(ODD_VALUES)
    try:
        return to_json(value)
    except FormatError:
        return json.dumps(value).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (object or list, key or index) in the value."""
    found: list[tuple[Any, Any]] = []
    left = [value]
    while left:
        held = left.pop()
        keys = list(held) if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ()
        found += ((held, key) for key in keys)
        left += (held[key] for key in keys)
    return found
