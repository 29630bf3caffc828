"""The Flower app as a folder of its own, for `flwr run`.

Made from the packages that this process imports, so that an installed wheel works as a checkout does, and the
tested code is the packed code. The base model, samples and contracts (`assets`) stay outside: a FAB holds 10 MiB and no
weights; the apps import `assets` from where Foedus is installed.
"""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from client_app.own_app import PACKAGES, installed_files
from core.config import RunConfig


def stage(folder: Path) -> Path:
    """Write the app into `folder` and return it."""
    for name, path in installed_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
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
