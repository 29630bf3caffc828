"""A coordinator's folder as `foedus deploy init` makes it, without a chain."""

from pathlib import Path

from console.deployments.federation_folder import FederationFolder
from core.deployment import FederationSettings
from tests import federation as f

FILE = """
name = "clinics"
hosts = ["localhost", "127.0.0.1"]
organisations = ["financial", "medical"]
base = "foedus-tiny"
listen = "127.0.0.1:9092"

[run]
rounds = 1
learning-rate = 0.01
"""


def settings(folder: Path, text: str = FILE) -> FederationSettings:
    """What a file says."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "federation.toml").write_text(text)
    return FederationSettings.read(folder)


def founded(folder: Path, text: str = FILE) -> FederationFolder:
    """The folder with kits."""
    given, found = settings(folder / "given", text), FederationFolder(folder / "clinics")
    found.write_settings(given)
    found.key()
    found.certify(given)
    found.write_kits(f.CHAIN)
    return found
