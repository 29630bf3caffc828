"""A coordinator's folder: made again it keeps its keys, and admits nobody but whom a kit was made for."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from chain.joining import JoinKit, JoinRequest
from console.deployments.certificates import authority, server
from console.deployments.federation_folder import FederationFolder
from console.deployments.organisation_folder import Choices, join
from core import keys
from core.config import RunConfig
from core.deployment import CoordinatorSettings
from core.errors import ConfigError, IntegrityError, UsageError
from core.names import Name
from tests import federation as f
from tests.console.deployments.founded import FILE, founded, settings


def asked(found: FederationFolder, name: str, folder: Path) -> JoinRequest:
    return join(JoinKit.from_json(found.kit_file(name).read_bytes()), folder / name, Choices())


def test_a_folder_that_is_made_again_keeps_its_keys(tmp_path: Path) -> None:
    found = founded(tmp_path)
    before = {path: path.read_bytes() for path in found.folder.rglob("*") if path.is_file()}
    again = founded(tmp_path)
    assert {path: path.read_bytes() for path in again.folder.rglob("*") if path.is_file()} == before
    for name in ("own.key", "ca.key", "server.key"):
        assert stat.S_IMODE((found.folder / name).stat().st_mode) == 0o600
    assert CoordinatorSettings.read(found.folder).state == found.state / "coordinator"


def test_a_host_that_is_added_is_certified_by_the_same_ca(tmp_path: Path) -> None:
    before, ca = (found := founded(tmp_path)).folder / "server.pem", (found.folder / "ca.pem").read_bytes()
    old = before.read_bytes()
    founded(tmp_path, FILE.replace('"127.0.0.1"]', '"127.0.0.9"]'))
    assert before.read_bytes() != old
    assert (found.folder / "ca.pem").read_bytes() == ca


def test_the_operator_s_own_certificate_is_taken_if_it_has_the_names(tmp_path: Path) -> None:
    ca = authority("CA of a company")
    ca.write(tmp_path / "ca.pem", tmp_path / "ca.key")
    for hosts in (("localhost",), ("localhost", "127.0.0.1")):
        server("own", hosts, ca).write(tmp_path / "own.pem", tmp_path / "own.key")
        own = "".join(f'{name} = "{tmp_path}/{file}"\n' for name, file in
                      (("certificate", "own.pem"), ("private-key", "own.key"), ("ca", "ca.pem")))  # fmt: skip
        text = own + FILE
        if len(hosts) == 1:
            with pytest.raises(UsageError, match=r"certificate: expected one for .*, got none for 127\.0\.0\.1"):
                founded(tmp_path, text)
    found = founded(tmp_path, text)
    for other, error in (("own.pem", "expected PEM"), ("ca.key", "expected the key of"), ("none", "expected PEM")):
        with pytest.raises(UsageError, match=error):
            founded(tmp_path, text.replace("own.key", other))
    assert (found.folder / "server.pem").read_bytes() == (tmp_path / "own.pem").read_bytes()
    assert stat.S_IMODE((found.folder / "server.key").stat().st_mode) == 0o600
    assert not (found.folder / "ca.key").exists()


def test_a_kit_has_what_a_node_pins_and_no_secret(tmp_path: Path) -> None:
    found = founded(tmp_path)
    kit = JoinKit.from_json(found.kit_file("medical").read_bytes())
    key = found.key()
    assert (kit.coordinator, kit.chain, kit.superlink) == (key.address, f.CHAIN, "localhost:9092")
    assert kit.base_digest == found.base_digest
    text = found.kit_file("medical").read_bytes()
    for secret in (key.secret.hex().encode(), b"PRIVATE KEY"):
        assert secret not in text


def test_who_is_admitted_is_asked_by_the_run_and_registered_by_the_superlink(tmp_path: Path) -> None:
    found = founded(tmp_path)
    with pytest.raises(UsageError, match="expected organisations, got none"):
        found.run_settings()
    request = found.admit(asked(found, "medical", tmp_path))
    found.admit(request)
    config = RunConfig.from_flat(found.run_settings())
    assert config.listed == {request.address.lower(): 0}
    assert (config.organisations, config.quorum, config.rounds, config.learning_rate) == (1, 1, 1, 0.01)
    assert keys.read(Path(config.coordinator_key)) == found.key()
    assert (found.folder / "nodes" / "medical.pub").read_text().strip() == request.node_key


def test_nobody_else_is_admitted(tmp_path: Path) -> None:
    found = founded(tmp_path)
    request = found.admit(asked(found, "medical", tmp_path))
    other = join(JoinKit.from_json(found.kit_file("medical").read_bytes()), tmp_path / "other", Choices())
    with pytest.raises(IntegrityError, match=f"medical: expected the request of {request.address}, got another one"):
        found.admit(other)
    with pytest.raises(UsageError, match="expected one of financial, medical, got one of 'coding'"):
        found.admit(replace(request, organisation=Name("coding")))
    with pytest.raises(IntegrityError, match="expected an address of its own, got that of medical"):
        found.admit(replace(request, organisation=Name("financial")))
    with pytest.raises(IntegrityError, match="expected kit"):
        found.admit(replace(asked(found, "financial", tmp_path), kit=request.kit))
    assert [path.name for path in (found.folder / "nodes").iterdir()] == ["medical.pub"]


def test_a_federation_is_found_by_its_folder_or_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = founded(tmp_path)
    assert FederationFolder.named(str(found.folder)) == found
    monkeypatch.setattr("console.deployments.federation_folder.INSTALLED", tmp_path)
    assert FederationFolder.named("clinics") == found
    with pytest.raises(UsageError, match="got 'nobody'"):
        FederationFolder.named("nobody")


def test_units_name_the_folder_and_the_port(tmp_path: Path) -> None:
    found = founded(tmp_path)
    texts = {path.name: path.read_text() for path in found.write_units()}
    assert f'coordinator "{found.folder}"\n' in texts["foedus-coordinator.service"]
    assert "ListenStream=9092" in texts["foedus-coordinator.socket"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (('name = "clinics"', 'name = "cli/nics"'), "name of an organisation"),
        (('"medical"]', '"Financial"]'), "expected each once"),
        (('"127.0.0.1"]', '"a b"]'), "hosts: expected names or IP addresses, got 'a b'"),
        (('hosts = ["localhost", "127.0.0.1"]', "hosts = []"), "hosts: expected at least one"),
        (("rounds = 1", "rouns = 1"), "expected a setting, got 'rouns': did you mean rounds"),
        (("rounds = 1", 'base = "x"'), "expected settings that this file does not decide elsewhere, got 'base'"),
        (("rounds = 1", "rounds = -1"), "rounds"),
        (("9092", "0"), "listen"),
        (("127.0.0.1:9092", "127.0.0.1; x:9092"), "listen: expected ADDRESS:PORT"),
        (("127.0.0.1:9092", "a\\nb:9092"), "listen: expected ADDRESS:PORT"),
        (("9092", "9093"), "control-port: expected another port than that of listen, got 9093"),
        (('base = "foedus-tiny"', 'base = "foedus-tiny"\nmetrics = "$x:1"'), "metrics: expected ADDRESS:PORT"),
        (('base = "foedus-tiny"', 'base = "foedus-tiny"\nchain = "http://[::"'), "expected a host or a URL"),
        (('base = "foedus-tiny"', 'base = "foedus-tiny"\nkey = "\\u0000"'), "key: expected text without NUL"),
        (('name = "clinics"', 'name = "clinics"\nca = "x"'), "together"),
        (('name = "clinics"', 'name = "clinics"\nnorm-bound = 0'), "norm-bound"),
        (('"127.0.0.1"]', '"hub.example"]'), "reach from machines of their own, .* is hub.example, got embedded"),
    ],
)
def test_a_file_that_cannot_be_deployed_is_named(tmp_path: Path, change: tuple[str, str], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        settings(tmp_path, FILE.replace(*change))
