"""Units and compose files are whole, and what the image and the services must not do stays so."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from console.deployments.templates import write_templates
from tests.docs.blocks import ROOT

VALUES = {"folder": "/etc/foedus/clinics", "program": "/usr/bin/true", "user": "root", "port": 9092, "control": 9093}
VALUES |= {"node_user": "root", "signer_user": "root", "data": "/srv/data"}


@pytest.mark.parametrize("kind", ["coordinator", "organisation"])
def test_every_template_is_filled_in(tmp_path: Path, kind: str) -> None:
    written = write_templates(kind, tmp_path, VALUES)
    assert written
    for path in written:
        assert "$" not in path.read_text()
        assert path.parent == (tmp_path if path.suffix == ".yaml" else tmp_path / "systemd")
    for unit in (tmp_path / "systemd").iterdir():
        parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
        parser.optionxform = str  # type: ignore[assignment, method-assign] # the documented way to keep the case
        parser.read(unit)
        assert "Unit" in parser or "Socket" in parser
        if "ExecStart" in parser["Service"] if "Service" in parser else False:
            assert parser["Service"].get("NoNewPrivileges", "yes") == "yes"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("kind", ["coordinator", "organisation"])
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path, kind: str) -> None:
    units = [path for path in write_templates(kind, tmp_path, VALUES) if path.suffix == ".service"]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert "Unknown" not in done.stderr, done.stderr


def test_a_signer_has_no_network_and_nothing_but_the_coordinator_publishes_a_port(tmp_path: Path) -> None:
    services = {}
    for kind in ("coordinator", "organisation"):
        write_templates(kind, tmp_path, VALUES)
        services |= yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert service.get("user", "foedus") != "root"
        assert service["cap_drop"] == ["ALL"]
        assert (service.get("network_mode") == "none") == (name == "signer")
        assert service.get("ports", []) == (["9092:9092"] if name == "coordinator" else [])
    # The node's container sees no key, the signer's no data.
    assert not [volume for volume in services["node"]["volumes"] if "/signer" in volume]
    assert not [volume for volume in services["signer"]["volumes"] if "/node" in volume or "/srv/data" in volume]
    assert "USER foedus" in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
