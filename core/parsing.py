"""Nouns from plain data: a dataclass takes exactly its fields, each of the type that it declares.

An integer is a count, from 0 to 2^53 − 1, which is what canonical JSON can hold; a float is finite.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from core.canonical import Address, Digest, address, raw
from core.errors import FormatError
from core.names import Name, organisation_name
from core.ranges import number

T = TypeVar("T")


def in_words(cls: type) -> str:
    """What a message calls a noun: `RoundRecord` is a round record."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__).lower()


def parsed(cls: type[T], data: Mapping[str, Any], nested: Mapping[str, Any], called: str = "") -> T:
    """A noun; `nested` has the parsers of the fields that are not plain. Raises FormatError.

    A field with a default must be there too: data have one form, whatever defaults later versions choose. A message
    calls the noun `called`, or by its class's name in words.
    """
    called = called or in_words(cls)
    try:
        names = [item.name for item in fields(cls)]  # type: ignore[arg-type] # every T here is a dataclass
        if missing := [name for name in names if name not in data]:
            raise FormatError(f"malformed {called}: expected a field {missing[0]!r}, got {sorted(data)}")
        if added := sorted(set(data).difference(names)):
            raise FormatError(f"malformed {called}: expected no field {added[0]!r:.80}")
        noun = cls(**{name: nested[name](value) if name in nested else value for name, value in data.items()})
    # Foreign data may be of any type anywhere: whatever the parsers trip over is one fault.
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"malformed {called}: {error}") from error
    return typed(noun)


def typed(value: T) -> T:
    """The value itself; raises FormatError when a plain field has another type than it declares, or no such value."""
    called = in_words(type(value))
    for item in fields(value):  # type: ignore[arg-type] # as above
        got = getattr(value, item.name)
        if check := _CHECKS.get(item.type):
            check(got)
        elif item.type in _TYPES and type(got) not in _TYPES[item.type]:
            expected = " or ".join(kind.__name__ for kind in _TYPES[item.type])
            raise FormatError(f"malformed {called}: expected {expected} as {item.name}, got {got!r:.140}")
        elif item.type is int and not 0 <= got < 2**53:
            raise FormatError(f"{called}: expected {item.name} from 0 to 2^53 − 1, got {number(got)}")
        elif item.type is float:
            finite(f"{called}: {item.name}", got)
    return value


def finite(what: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """The value as a float; raises FormatError for what is no finite number, or none from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"{what}: expected a number, got {value!r:.140}")
    # An integer beyond the largest float is refused before it is converted, which would raise.
    if not max(low, -sys.float_info.max) <= value <= min(high, sys.float_info.max):
        among = f"{low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
        among = "a finite number" if math.isinf(low) else among
        raise FormatError(f"{what}: expected {among}, got {number(value)}")
    return float(value)


_CHECKS: Mapping[Any, Callable[[Any], object]] = {Digest: raw, Address: address, Name: organisation_name}
_TYPES: Mapping[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (float, int), str: (str,)}
