"""The tree of errors: all exceptions of the packages, as the docstring draws them."""

import importlib
import inspect
import pkgutil
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

from core import errors
from core.errors import FoedusError, UsageError

ROOT = Path(__file__).parents[2]
INTERNAL = {
    # Answers of a development chain: JSON-RPC's error objects, which reach callers as LedgerErrors.
    "chain.devnet.eth.UnknownBlockError",
    "chain.devnet.evm.InvalidTransactionError",
    "chain.devnet.evm.RevertedError",
    "chain.devnet.rpc.RpcError",
    # A client's fault on its way to the RoundRecord.
    "server_app.admission.RejectedError",
    # A request to the web console: each becomes an answer with a status of HTTP.
    "console.web.chat_request.RequestError",
    "console.web.engine.BusyError",
    "console.web.security.TooLargeError",
    # A client of it that reads nothing: the server gives it up.
    "console.web.security._NotReadingError",
}
"""Exceptions that never leave their package: each is caught and told as something else."""


@cache
def raised() -> dict[str, type[Exception]]:
    """Every exception class that a module of the packages defines, by its full name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = [name for name in settings["tool"]["setuptools"]["packages"] if "." not in name]
    for package in packages:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            importlib.import_module(module.name)
    found: dict[str, type[Exception]] = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in packages:
            classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if issubclass(cls, Exception)]
            found |= {f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes if cls.__module__ == name}
    return found


def drawn() -> dict[str, str]:
    """Every error of the docstring's tree with the one above it."""
    above, parents = [("", -1)], {}
    for indent, name in re.findall(r"^([ │├└─]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        while above[-1][1] >= len(indent):
            above.pop()
        parents[name] = above[-1][0]
        above.append((name, len(indent)))
    return parents


def test_every_exception_is_in_core_errors_or_never_leaves_its_package() -> None:
    assert {name for name in raised() if not name.startswith("core.errors.")} == INTERNAL


def test_the_drawn_tree_is_that_of_the_classes() -> None:
    defined = {cls.__name__: cls for name, cls in raised().items() if name.startswith("core.errors.")}
    assert len(defined) > 10
    bases = {name: cls.__base__.__name__ for name, cls in defined.items() if cls.__base__}
    assert {name: above or "Exception" for name, above in drawn().items()} == bases


def test_every_error_is_a_foedus_error_with_a_docstring() -> None:
    for name, cls in raised().items():
        assert cls.__doc__, name
        assert issubclass(cls, FoedusError) or name in INTERNAL


def test_a_mistake_of_the_user_exits_with_2_and_everything_else_with_1() -> None:
    for name, cls in raised().items():
        if issubclass(cls, FoedusError) and name not in INTERNAL:
            assert cls("x").exit_code == (2 if issubclass(cls, UsageError) else 1), name
