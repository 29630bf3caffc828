"""An organisation's folder: its keys are made once and stay there, and its node pins what the kit says."""

import os
import pwd
import re
import shutil
import stat
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from chain.joining import JoinKit, JoinRequest
from console.deployments.organisation_folder import Choices, join, notes
from core import keys
from core.deployment import NodeSettings, SignerSettings
from core.errors import ConfigError, FoedusError, UsageError
from core.site_policy import SitePolicy
from tests.console.deployments.founded import founded


@pytest.fixture
def kit(tmp_path: Path) -> JoinKit:
    return JoinKit.from_json(founded(tmp_path).kit_file("medical").read_bytes())


def test_the_folders_are_read_by_node_and_signer_and_pin_the_kit(kit: JoinKit, tmp_path: Path) -> None:
    home = tmp_path / "medical"
    join(kit, home, Choices())
    node, signer = NodeSettings.read(home / "node"), SignerSettings.read(home / "signer")
    assert (node.pin_coordinator, node.pin_contract) == (kit.coordinator, kit.chain.contract)
    assert node.base == kit.base
    assert node.policy
    assert signer.policy
    assert node.policy != signer.policy, "neither user may write the other's copy"
    for policy in map(SitePolicy.read_file, (node.policy, signer.policy)):
        assert (policy.bases, policy.most_norm, policy.approve) == ((kit.base_digest,), kit.norm_bound, "never")


def test_every_setting_of_the_policy_stands_in_the_file_that_join_writes(kit: JoinKit, tmp_path: Path) -> None:
    join(kit, tmp_path / "medical", Choices())
    written = (tmp_path / "medical" / "node" / "policy.toml").read_text()
    for item in fields(SitePolicy):
        assert item.name == "folder" or re.search(rf"^(# )?{item.name.replace('_', '-')} = ", written, re.MULTILINE)


def test_the_signer_s_and_the_node_s_settings_are_read_back(kit: JoinKit, tmp_path: Path) -> None:
    home = tmp_path / "medical"
    request = join(kit, home, Choices())
    node, signer = NodeSettings.read(home / "node"), SignerSettings.read(home / "signer")
    assert (signer.domain, signer.coordinator) == (kit.chain, kit.coordinator)
    assert node.signer is not None
    assert node.signer.resolve() == signer.socket.resolve()
    assert keys.read(signer.key).address == request.address
    assert node.node_key is not None
    load_ssh_private_key(node.node_key.read_bytes(), None)
    assert JoinRequest.from_json((home / "request.json").read_bytes()).verified(kit) == request
    assert (home / "systemd" / "foedus-node.service").exists()


def test_secrets_are_their_users_alone_and_are_never_made_twice(kit: JoinKit, tmp_path: Path) -> None:
    home = tmp_path / "medical"
    join(kit, home, Choices())
    for secret in (home / "signer" / "key", home / "node" / "node"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    for folder in (home / "signer", home / "node"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(UsageError, match="expected no such folder yet"):
        join(kit, home, Choices())


def test_users_of_the_parts_pass_through_folders_that_are_made_on_the_way(kit: JoinKit, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        join(kit, tmp_path / "srv" / "foedus" / "medical", Choices())
    finally:
        os.umask(before)
    for folder in ("srv", "srv/foedus", "srv/foedus/medical", "srv/foedus/medical/socket"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o755


def test_an_organisation_chooses_data_base_chain_and_keystore(kit: JoinKit, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("long and own\n")
    passphrase.chmod(0o600)
    home = tmp_path / "medical"
    chosen = Choices(tmp_path / "data", str(tmp_path / "base"), "https://own.example", passphrase=passphrase)
    request = join(kit, home, chosen)
    node = NodeSettings.read(home / "node")
    assert (node.data, node.base, node.chain_url) == (tmp_path / "data", str(tmp_path / "base"), "https://own.example")
    signer = SignerSettings.read(home / "signer")
    assert keys.read(signer.key, signer.passphrase).address == request.address
    assert (home / "signer" / "key").read_text().startswith("{")


def test_nothing_is_made_without_the_data_or_for_users_that_are_none(kit: JoinKit, tmp_path: Path) -> None:
    home = tmp_path / "medical"
    for choices, error in (
        (Choices(tmp_path / "nowhere"), "--data: expected a folder"),
        (Choices(node_user="no-such-user"), "expected a user of this machine, got 'no-such-user': useradd"),
        (Choices(passphrase=tmp_path / "nowhere"), "passphrase file"),
    ):
        with pytest.raises(UsageError, match=error):
            join(kit, home, choices)
        assert not home.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"superlink": "hub.example"},
        {"superlink": "hub.example:1\n- evil"},
        {"ca": "\u00e9"},
        {"ca": ""},
        {"chain_url": "http://[::"},
        {"chain_url": "http://hub.example:99999"},
    ],
)
def test_nothing_is_made_from_a_kit_whose_addresses_or_ca_are_none(
    kit: JoinKit, tmp_path: Path, change: dict[str, str]
) -> None:
    with pytest.raises(FoedusError, match=r"kit: (superlink: )?expected"):
        join(replace(kit, **change), tmp_path / "medical", Choices())
    with pytest.raises(ConfigError, match="metrics: expected"):
        join(kit, tmp_path / "medical", Choices(metrics="a b"))
    assert not (tmp_path / "medical").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give folders to other users")
def test_each_process_gets_a_folder_of_its_own_user(kit: JoinKit, tmp_path: Path) -> None:
    home = tmp_path / "medical"
    join(kit, home, Choices(node_user="bin", signer_user="daemon"))
    for name, user in (("node", "bin"), ("signer", "daemon"), ("socket", "daemon")):
        for path in (home / name, *(home / name).rglob("*")):
            assert path.stat().st_uid == pwd.getpwnam(user).pw_uid
    assert SignerSettings.read(home / "signer").users == ("bin",)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_what_a_user_cannot_run_or_read_is_said_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(sys, "executable", shutil.copy("/bin/true", closed / "python"))
    told = notes(tmp_path / "medical", Choices(closed, node_user="bin", signer_user="daemon"))
    assert [note.partition(": ")[0] for note in told] == [
        f"bin cannot run {closed}/python", f"daemon cannot run {closed}/python", f"bin cannot read {closed}"
    ]  # fmt: skip
    monkeypatch.setattr(sys, "executable", "/bin/true")
    assert notes(tmp_path / "medical", Choices(Path("/usr/share"), node_user="bin", signer_user="daemon")) == []
