"""What a part of a deployment reads is in one small file, and everything wrong with it is named."""

import re
from pathlib import Path
from typing import Any

import pytest

from core.config import RunConfig
from core.deployment import CoordinatorSettings, NodeSettings, SignerSettings, is_local
from core.errors import ConfigError
from tests import federation as f

NODE = """
organisation = "medical"
superlink = "coordinator.example:9092"
data = "data"
signer = "/run/foedus/signer.sock"
root-certificates = "ca.pem"
node-key = "node"
"""
SIGNER = f"""
coordinator = "{f.COORDINATOR.address}"
chain-id = 31337
contract = "{f.CHAIN.contract}"
"""
COORDINATOR = 'certificate = "server.pem"\nprivate-key = "server.key"\n'


def node(folder: Path, text: str) -> NodeSettings:
    (folder / "node.toml").write_text(text)
    return NodeSettings.read(folder)


def test_paths_lie_in_the_folder_unless_they_are_absolute(tmp_path: Path) -> None:
    settings = node(tmp_path, NODE)
    assert (settings.data, settings.state, settings.node_key) == tuple(tmp_path / n for n in ("data", "state", "node"))
    assert settings.signer == Path("/run/foedus/signer.sock")


def test_the_client_app_is_told_what_the_file_says_and_no_more(tmp_path: Path) -> None:
    assert node(tmp_path, NODE).node_config() == {
        "organisation": "medical",
        "superlink": "coordinator.example:9092",
        "data": str(tmp_path / "data"),
        "signer": "/run/foedus/signer.sock",
        "node-key": str(tmp_path / "node.pub"),
        "state": str(tmp_path / "state"),
        "base": RunConfig().base,
    }
    own = node(
        tmp_path, NODE + 'chain-url = "http://own"\nchain-lag = 0\nbudget = 3\nbase = "/srv/base"\n'
    ).node_config()
    pinned = node(tmp_path, NODE + 'pin-coordinator = "0x1"\npolicy = "policy.toml"\n').node_config()
    assert (pinned["pin-coordinator"], pinned["policy"]) == ("0x1", str(tmp_path / "policy.toml"))
    assert (own["chain-url"], own["chain-lag"], own["budget"], own["base"]) == ("http://own", 0, 3, "/srv/base")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (NODE + 'bse = "x"', "expected settings among .*base.*, got 'bse'"),
        (NODE.replace('data = "data"', ""), "expected a setting data, got none"),
        (NODE.replace('"medical"', "5"), "organisation: expected text, got 5"),
        (NODE + "chain-lag = true", "chain-lag: expected a whole number, got True"),
        (NODE + 'budget = "all"', "budget: expected a number, got 'all'"),
        (NODE + 'chain-lag-policy = "sometimes"', "chain-lag-policy: expected flag or abstain, got 'sometimes'"),
        (NODE + "most-draws = 0", "most-draws: expected at least 1, got 0"),
        (NODE + "idle = 0", "idle: expected a number above 0, got 0"),
        (NODE + "idle = nan", "idle: expected a number above 0, got nan"),
        (NODE + 'key-file = "key"', "expected signer or key-file, got both"),
        (NODE.replace("signer =", "base ="), "expected signer or key-file, got neither"),
        (NODE.replace("signer =", "key-file ="), "expected pin-coordinator with a key-file"),
        (NODE.replace("root-certificates", "policy"), "expected root-certificates with a node-key"),
        (NODE.replace('"data"', '""'), "data: expected a path, got ''"),
        ("organisation", "expected TOML in UTF-8"),
        *(
            (f"{NODE}{name} = {value}\n", f"{name}: expected 0 to 1e.12, got {value}")
            for name in ("step-price", "traffic-price", "budget")
            for value in ("nan", "inf", "-1.0")
        ),
        (NODE + "chain-lag = -1", "chain-lag: expected 0 to"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        node(tmp_path, text)


def test_a_folder_without_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'signer.toml'}: expected a settings file, got No")):
        SignerSettings.read(tmp_path)


def test_a_signer_signs_for_one_domain(tmp_path: Path) -> None:
    federation = f.genesis().digest
    (tmp_path / "signer.toml").write_text(SIGNER + f'federations = ["{federation}"]\nusers = ["foedus-node"]\n')
    settings = SignerSettings.read(tmp_path)
    assert settings.domain == f.CHAIN
    assert (settings.federations, settings.users) == ((federation,), ("foedus-node",))
    assert (settings.key, settings.socket) == (tmp_path / "key", tmp_path / "signer.sock")


@pytest.mark.parametrize("spelt", [str.lower, lambda address: "0x" + address[2:].upper()])
def test_a_signer_takes_an_address_in_any_spelling(tmp_path: Path, spelt: Any) -> None:
    text = SIGNER
    for address in (f.COORDINATOR.address, f.CHAIN.contract):
        text = text.replace(address, spelt(address))
    (tmp_path / "signer.toml").write_text(text)
    settings = SignerSettings.read(tmp_path)
    assert (settings.coordinator, settings.domain) == (f.COORDINATOR.address, f.CHAIN)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (SIGNER.replace(f.COORDINATOR.address, "0x12"), "address"),
        (SIGNER + 'federations = ["0x12"]', "digest"),
        (SIGNER.replace("31337", "-31337"), "chain-id: expected 0 to"),
        (SIGNER.replace("31337", str(2**53)), "chain-id: expected 0 to"),
        (SIGNER.replace("31337", "0x" + "f" * 2000), "chain-id: expected 0 to .* an integer of 8000 bits"),
        (SIGNER + "federations = [5]", "federations: expected a list of text"),
        (SIGNER + 'users = "me"', "users: expected a list of text, got 'me'"),
    ],
)
def test_a_signer_is_told_addresses_and_digests(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "signer.toml").write_text(text)
    with pytest.raises(ConfigError, match=error):
        SignerSettings.read(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        'listen = "9092"', 'listen = "0.0.0.0:none"', "control-port = 0", 'listen = "0.0.0.0:²"',
        f'listen = "0.0.0.0:{"9" * 5000}"',
    ],
    ids=lambda wrong: wrong[:20],
)  # fmt: skip
def test_a_coordinator_listens_on_a_port(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "coordinator.toml").write_text(COORDINATOR)
    assert CoordinatorSettings.read(tmp_path).listen == "0.0.0.0:9092"
    (tmp_path / "coordinator.toml").write_text(COORDINATOR + wrong)
    with pytest.raises(ConfigError, match=r"expected ADDRESS:PORT|expected 1 to 65535"):
        CoordinatorSettings.read(tmp_path)


def test_nesting_without_end_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected TOML"):
        node(tmp_path, f"{NODE}x = {'[' * 20_000}\n")


@pytest.mark.parametrize(
    "place", ["embedded", "anvil", "localhost", "127.0.0.1", "::1", "http://localhost:8545", "http://[::1]:1/x"]
)
def test_a_place_on_this_machine_is_local(place: str) -> None:
    assert is_local(place)


@pytest.mark.parametrize("place", ["hub.example", "10.0.0.1", "https://rpc.example/key", "http://10.0.0.1:8545"])
def test_a_place_that_others_reach_is_not(place: str) -> None:
    assert not is_local(place)
