"""Nouns from plain data: a dataclass takes exactly its fields, each of the type that it declares."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from core.canonical import Address, Digest, address, raw
from core.errors import FormatError

T = TypeVar("T")


def parsed(cls: type[T], data: Mapping[str, Any], nested: Mapping[str, Any]) -> T:
    """A noun; `nested` has the parsers of the fields that are not plain. Raises FormatError.

    A field with a default must be there too: data have one form, whatever defaults later versions choose.
    """
    try:
        if missing := [item.name for item in fields(cls) if item.name not in data]:  # type: ignore[arg-type] # as below
            raise FormatError(f"malformed {cls.__name__}: expected a field {missing[0]!r}, got {sorted(data)}")
        noun = cls(**{name: nested[name](value) if name in nested else value for name, value in data.items()})
    # Foreign data may be of any type anywhere: whatever the parsers trip over is one fault.
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"malformed {cls.__name__}: {error}") from error
    return typed(noun)


def typed(value: T) -> T:
    """The value itself; raises FormatError when a plain field has another type than it declares."""
    for item in fields(value):  # type: ignore[arg-type] # every T here is a dataclass
        got = getattr(value, item.name)
        if check := _CHECKS.get(item.type):
            check(got)
        elif item.type in _TYPES and type(got) not in _TYPES[item.type]:
            expected = " or ".join(kind.__name__ for kind in _TYPES[item.type])
            raise FormatError(f"malformed {type(value).__name__}: expected {expected} as {item.name}, got {got!r}")
    return value


_CHECKS: Mapping[Any, Callable[[Any], object]] = {Digest: raw, Address: address}
_TYPES: Mapping[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (float, int), str: (str,)}
