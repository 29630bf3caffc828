"""`foedus request`: an organisation signs on its own machine that it be erased; its signer is a process of its own."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from client_app.agreement import keep
from core import keys
from core.genesis import Genesis
from core.keys import Key
from core.storage import jsonl
from core.storage.state_folder import State
from core.update import Organisation
from tests import federation as f
from tests.commands import PATIENCE_SECONDS, ended, foedus, started
from unlearning.requests import read_request

NODE = 'organisation = "medical"\nsuperlink = "localhost:1"\ndata = "data"\n'


class Home(NamedTuple):
    """An organisation's folder, its key, and the federation that it has agreed to."""

    folder: Path
    key: Key
    genesis: Genesis


def agreed(folder: Path) -> Home:
    key = keys.create(folder / "key")
    own = Organisation(key.address, "medical", 100, derived=False)
    others = (member for member in f.members() if member.name != "medical")
    members = tuple(sorted((*others, own), key=lambda member: int(member.address, 16)))
    genesis = replace(f.genesis(), organisations=members, lanes=(tuple(member.address for member in members),))
    state = State.at(folder / "state")
    jsonl.append(state.agreed(key.address), {"genesis": genesis.digest})
    keep(genesis, state.agreed_genesis())
    return Home(folder, key, genesis)


@pytest.fixture
def signing(tmp_path: Path) -> Iterator[Home]:
    """With its signer up."""
    home = agreed(tmp_path)
    chain = home.genesis.chain
    (tmp_path / "signer.toml").write_text(
        f'coordinator = "{f.COORDINATOR.address}"\nchain-id = {chain.chain_id}\ncontract = "{chain.contract}"\n'
    )
    process = started("signer", tmp_path)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (tmp_path / "signer.sock").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    yield home
    process.terminate()
    ended(process)


def test_a_signer_s_own_user_asks_and_the_coordinator_can_check_it(signing: Home) -> None:
    out, records = signing.folder / "request.json", signing.folder / "withdrawn.jsonl"
    records.write_text('{"question":"Who?","answer":"Nobody."}\n', encoding="utf-8")
    options = ["--method", "replay", "--records", records, "--basis", "GDPR Art. 17", "--out", out]
    done = foedus("request", signing.folder, *options, "--json").json
    opened = read_request(out)
    request = opened.verified(signing.genesis).value
    assert (request.organisation, request.count, request.basis) == (signing.key.address, 1, "GDPR Art. 17")
    assert done == {
        "run": signing.genesis.run, "organisation": "medical", "method": "replay", "records": 1,
        "request": request.digest, "path": str(out),
    }  # fmt: skip
    assert "Nobody" not in out.read_text(encoding="utf-8")
    assert foedus("request", signing.folder, *options).code == 0
    assert read_request(out) == opened, "asked again, it is the same request"


def test_a_node_with_a_key_file_asks_itself_and_one_with_a_signer_does_not(tmp_path: Path) -> None:
    home, out = agreed(tmp_path), tmp_path / "request.json"
    (tmp_path / "node.toml").write_text(f'{NODE}key-file = "key"\npin-coordinator = "{f.COORDINATOR.address}"\n')
    assert foedus("request", tmp_path, "--method", "remove", "--out", out).code == 0
    assert read_request(out).verified(home.genesis).value.whole
    out.unlink()
    (tmp_path / "node.toml").write_text(f'{NODE}signer = "signer.sock"\n')
    done = foedus("request", tmp_path, "--method", "remove", "--out", out)
    assert "expected the folder of its signer, as its user or root, got that of the node" in done.error
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--method", "forgive"], "method: expected one of"),
        (["--method", "shards"], "give --records FILE"),
        (["--method", "remove", "--run", "other"], "expected one of the federations"),
        (["--method", "remove", "--out", "nowhere/request.json"], "expected a file to write"),
        (["--method", "shards", "--records", "out", "--out", "out"], "expected a file of its own to write"),
    ],
)
def test_what_cannot_be_asked_is_not_signed(tmp_path: Path, options: list[str], error: str) -> None:
    agreed(tmp_path)
    (tmp_path / "node.toml").write_text(f'{NODE}key-file = "key"\npin-coordinator = "{f.COORDINATOR.address}"\n')
    out = [] if "--out" in options else ["--out", tmp_path / "request.json"]
    done = foedus("request", tmp_path, *options, *out)
    assert done.code == 2
    assert error in done.error
    assert not (tmp_path / "request.json").exists()
