"""The Flower app as a folder of its own, for `flwr run`.

Made from the packages that this process imports, so that an installed wheel works as a checkout does, and the
tested code is the packed code. The base model, samples and contracts (`assets`) stay outside: a FAB holds 10 MiB and no
weights; the apps import `assets` from where Foedus is installed.
"""

import json
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from core.config import RunConfig

PACKAGES = ("core", "llm", "client_app", "server_app", "chain", "agents", "provenance", "unlearning")


def stage(folder: Path) -> Path:
    """Write the app into `folder` and return it."""
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None  # noqa: S101 - this package imports them all
        assert spec.origin is not None  # noqa: S101
        shutil.copytree(Path(spec.origin).parent, folder / package, ignore=_only_python)
    # A JSON string, number, boolean or list of strings is also a TOML one.
    settings = "\n".join(f"{name} = {json.dumps(value)}" for name, value in RunConfig().to_flat().items())
    declared = f"""\
[project]
name = "foedus"
version = "{version("foedus")}"
dependencies = []

[tool.flwr.app]
publisher = "foedus"
fab-include = {json.dumps([f"{package}/**/*.py" for package in PACKAGES])}

[tool.flwr.app.components]
serverapp = "server_app.app:app"
clientapp = "client_app.app:app"

[tool.flwr.app.config]
{settings}
"""
    (folder / "pyproject.toml").write_text(declared, encoding="utf-8")
    return folder


def _only_python(folder: str, names: list[str]) -> set[str]:
    """The names that `copytree` leaves out: all but folders and Python files."""
    skipped = {"__pycache__", "node_modules", "contracts"}
    return {name for name in names if name in skipped or not (name.endswith(".py") or (Path(folder) / name).is_dir())}
