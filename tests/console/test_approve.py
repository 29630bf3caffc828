"""`foedus approve`: a person sees what is held, and what is let go is what was looked at."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from client_app.agreement import keep
from client_app.approvals import Approvals, HeldUpdates
from client_app.remote_key import RemoteKey
from client_app.signer import SignerServer
from core import keys
from core.deployment import SignerSettings
from core.errors import HeldError
from core.genesis import Genesis
from core.keys import Key
from core.storage import jsonl
from core.storage.state_folder import State
from core.update import Organisation, UpdateManifest
from tests import federation as f
from tests.commands import foedus

NODE = 'organisation = "medical"\nsuperlink = "localhost:1"\ndata = "data"\n'


class Home(NamedTuple):
    """A node's folder, and the update that it holds."""

    folder: Path
    key: Key
    genesis: Genesis
    held: UpdateManifest

    @property
    def state(self) -> State:
        return State(self.folder / "state")

    @property
    def approvals(self) -> Approvals:
        return Approvals(self.state.approvals(self.key.address))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    key = keys.create(tmp_path / "key")
    own = Organisation(key.address, "medical", 100, derived=False)
    others = (member for member in f.members() if member.name != "medical")
    members = tuple(sorted((*others, own), key=lambda member: int(member.address, 16)))
    genesis = replace(f.genesis(), organisations=members, lanes=(tuple(member.address for member in members),))
    state = State.at(tmp_path / "state")
    jsonl.append(state.agreed(key.address), {"genesis": genesis.digest})
    keep(genesis, state.agreed_genesis())
    update = f.update_of(f.genesis(), "medical")
    made = replace(
        f.manifest(f.genesis()), genesis=genesis.digest, parent=genesis.digest, organisation=key.address,
        update=update.digest, examples=7,
    )  # fmt: skip
    HeldUpdates(state.held(genesis.digest, key.address)).keep(made, update)
    (tmp_path / "node.toml").write_text(f'{NODE}key-file = "key"\npin-coordinator = "{f.COORDINATOR.address}"\n')
    found = Home(tmp_path, key, genesis, made)
    with pytest.raises(HeldError):
        found.approvals.check(made, "each")
    return found


def test_a_person_sees_what_is_held_and_lets_it_go_by_its_digest(home: Home) -> None:
    update = f.update_of(f.genesis(), "medical")
    (entry,) = foedus("approve", home.folder, "--json").json["held"]
    assert entry == {
        "run": f.RUN, "lane": 0, "generation": 0, "round": 1, "manifest": home.held.digest, "digest": update.digest,
        "steps": home.held.bid.steps, "rank": home.held.bid.rank, "records": 7, "registered": 100,
        "bytes": len(update.to_bytes()), "norm": update.norm, "problem": None,
    }  # fmt: skip
    shown = foedus("approve", home.folder).out
    assert "7 of 100" in shown
    assert home.held.digest in shown
    assert "--yes DIGEST, or --refuse DIGEST" in shown
    assert foedus("approve", home.folder, "--yes", update.digest, "--json").json["decided"] == "released"
    home.approvals.check(home.held, "each")
    assert foedus("approve", home.folder).out == "Nothing is held.\n"


def test_what_is_refused_is_no_more_listed_and_never_leaves(home: Home) -> None:
    assert foedus("approve", home.folder, "--refuse", home.held.digest, "--json").json["decided"] == "refused"
    assert foedus("approve", home.folder, "--json").json["held"] == []
    with pytest.raises(Exception, match="keeps it"):
        home.approvals.check(home.held, "each")


def test_bytes_that_are_not_those_of_the_manifest_are_not_let_go(home: Home) -> None:
    """What the person looks at, and what is signed, must be one update."""
    other = f.update_of(f.genesis(), "coding")
    (path,) = home.state.held(home.genesis.digest, home.key.address).glob("*.update")
    path.write_bytes(other.to_bytes())
    (entry,) = foedus("approve", home.folder, "--json").json["held"]
    assert (entry["bytes"], entry["norm"]) == (None, None)
    done = foedus("approve", home.folder, "--yes", home.held.digest)
    assert f"held update: expected {home.held.update} as in its manifest, got {other.digest}" in done.error
    assert home.approvals.waiting() == [home.held]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--yes", "0x12"], "expected an update that is held (0x"),
        (["--yes", "0x12", "--refuse", "0x12"], "expected one of --yes, --refuse and --log, got several"),
        (["--log", "--refuse", "0x12"], "expected one of --yes, --refuse and --log, got several"),
    ],
)
def test_what_cannot_be_decided_is_said(home: Home, options: list[str], error: str) -> None:
    done = foedus("approve", home.folder, *options)
    assert done.code == 2
    assert error in done.error
    assert home.approvals.waiting() == [home.held]


def test_what_left_the_site_is_shown(home: Home) -> None:
    entry = {"at": "2026-01-01T00:00:00+00:00", "to": f.COORDINATOR.address, "run": "one", "what": "train"}
    jsonl.append(home.state.sent, entry | {"bytes": 1234, "digest": f.other("update"), "round": 3})
    assert foedus("approve", home.folder, "--log", "--json").json["sent"] == jsonl.read(home.state.sent)
    shown = foedus("approve", home.folder, "--log").out
    assert "1234" in shown
    assert "2026-01-01T00:00:00+00:00" in shown


def test_where_a_signer_holds_the_key_it_is_the_signer_that_lets_go(home: Home, tmp_path: Path) -> None:
    (tmp_path / "signer").mkdir()
    (tmp_path / "signer" / "policy.toml").write_text('approve = "each"')
    chain = home.genesis.chain
    settings = SignerSettings(
        tmp_path / "signer", f.COORDINATOR.address, chain.chain_id, chain.contract, socket=tmp_path / "signer.sock",
        state=home.folder / "state", policy=tmp_path / "signer" / "policy.toml",
    )  # fmt: skip
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "node.toml").write_text(f'{NODE}signer = "../signer.sock"\nstate = "../state"\n')
    with SignerServer(settings, home.key) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            assert [entry["digest"] for entry in foedus("approve", tmp_path, "--json").json["held"]] == [
                home.held.update
            ]
            assert foedus("approve", tmp_path, "--yes", home.held.digest, "--json").json["decided"] == "released"
            home.held.sign(RemoteKey(settings.socket), chain)
        finally:
            server.shutdown()
            thread.join()
