"""bitsandbytes, imported without torch's compiler.

It hands four functions to `torch.compile` when it is imported, for devices that it has no kernels of its own for. That
alone imports torch's compiler, which takes every process a second and a half. Here they are run as they are written.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch


def _as_written(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    return function or _as_written


_compile, torch.compile = torch.compile, _as_written  # type: ignore[assignment] # for as long as the import
try:
    with suppress(ImportError):  # without it an unquantised base can still be trained
        import bitsandbytes  # noqa: F401
finally:
    torch.compile = _compile
