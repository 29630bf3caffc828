"""What `foedus members join`, `leave`, `rotate`, `sign-leave` and `sign-rotation` do, from the command line."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from client_app.agreement import Agreement, keep
from console.deployments.federation_folder import FederationFolder
from core import keys
from core.canonical import from_json
from core.membership import Leave
from core.rotations import Rotation
from core.signed import Signed
from core.storage.state_folder import State
from tests import federation as f
from tests.commands import World, foedus
from tests.console.test_request import NODE, agreed

pytestmark = pytest.mark.chain


def test_an_organisation_leaves_a_finished_run_and_the_record_holds(
    finished: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(finished.base, finished.data, tmp_path / "state")
    shutil.copytree(finished.state, world.state)
    run = world.command("status").json["run"]
    coordinator = SimpleNamespace(folder=tmp_path, state=world.state)
    monkeypatch.setattr(FederationFolder, "named", {"clinics": coordinator}.__getitem__)
    done = foedus("members", "leave", run, "--organisation", "coding", "--federation", "clinics")
    assert f"Members  financial, medical\nNext: foedus run --federation clinics --resume {run}" in done.out, done.err
    report = world.command("verify", run).json
    assert (report["ok"], report["checked"]["memberships"]) == (True, 1)
    status = world.command("status", run).json
    assert (status["status"], status["members"]) == ("completed", ["financial", "medical"])
    assert "Members  now: financial, medical" in foedus("status", run, "--state", world.state).out
    again = foedus("members", "leave", run, "--organisation", "coding", "--state", world.state)
    assert "got one that has left" in again.error


def test_nobody_joins_a_finished_run_and_it_is_said_what_to_do(finished: World) -> None:
    run = finished.command("status").json["run"]
    done = foedus("members", "join", "coding", run, "--state", finished.state)
    assert "cannot join" in done.error


def test_a_leave_is_signed_at_home(tmp_path: Path) -> None:
    home, out = agreed(tmp_path), tmp_path / "leave.json"
    (tmp_path / "node.toml").write_text(f'{NODE}key-file = "key"\npin-coordinator = "{f.COORDINATOR.address}"\n')
    done = foedus("members", "sign-leave", tmp_path, "--out", out, "--json").json
    signed = Signed.parse(Leave, from_json(out.read_bytes()))
    assert signed.verified(home.genesis).organisation == done["organisation"] == home.key.address


@pytest.mark.parametrize("options", [[], ["--request", "leave.json", "--organisation", "coding"]])
def test_who_leaves_is_given_once(options: list[str]) -> None:
    assert "expected --request or --organisation, got" in foedus("members", "leave", *options).error


def test_a_rotation_is_signed_at_home_by_both_keys_and_after_a_loss_by_the_new_one(tmp_path: Path) -> None:
    home, out = agreed(tmp_path), tmp_path / "rotation.json"
    new = keys.create(tmp_path / "new.key")
    (tmp_path / "node.toml").write_text(f'{NODE}key-file = "key"\npin-coordinator = "{f.COORDINATOR.address}"\n')
    sign = ("members", "sign-rotation", tmp_path, "--new-key", tmp_path / "new.key", "--out", out)
    assert "expected a file of its own to write" in foedus(*sign[:-1], tmp_path / "new.key").error
    done = foedus(*sign, "--json").json
    signed = Signed.parse(Rotation, from_json(out.read_bytes()))
    rotation = signed.verified(home.genesis)
    assert (rotation.owner, rotation.old, rotation.new) == (home.key.address, home.key.address, new.address)
    assert (done["organisation"], done["key"]) == (home.key.address, new.address)
    Agreement.of(State.at(tmp_path / "state"), new, 8).check(home.genesis)
    assert "expected an administrator" in foedus(*sign, "--lost", "medical").error
    administrator = keys.derive(7, "administrator")
    genesis = replace(home.genesis, run="other", administrator=administrator.address)
    keep(genesis, State.at(tmp_path / "state").agreed_genesis())
    (tmp_path / "key").unlink()
    assert "--administrator-key" in foedus(*sign, "--lost", "medical", "--run", "other").out
    alone = Signed.parse(Rotation, from_json(out.read_bytes()))
    assert (alone.value.by, len(alone.signatures)) == (administrator.address, 1)
    whole = Signed(alone.value, (administrator.sign_statement(genesis.chain, alone.value), *alone.signatures))
    assert whole.verified(genesis).owner == home.key.address


def test_a_coordinator_s_key_is_replaced_from_the_command_line(finished: World, tmp_path: Path) -> None:
    world = World(finished.base, finished.data, tmp_path / "state")
    shutil.copytree(finished.state, world.state)
    run = world.command("status").json["run"]
    genesis = State(world.state).run(run).genesis
    former, new = tmp_path / "former.key", keys.create(tmp_path / "new.key")
    former.write_text(keys.derive(genesis.seed, "coordinator").secret.hex() + "\n")
    former.chmod(0o600)
    rotate = ("members rotate", run, "--new-key", tmp_path / "new.key")
    assert "former-key: expected" in foedus(*["members", "rotate"], *rotate[1:], "--state", world.state).error
    done = world.command(*rotate, "--former-key", former)
    assert done.json["members"] == ["coding", "financial", "medical"]
    report = world.command("verify", run).json
    assert (report["ok"], report["failures"], report["checked"]["memberships"]) == (True, [], 1)
    assert State(world.state).run(run).genesis.signing(genesis.coordinator) == new.address
    told = world.command("status", run).json["rotations"]
    expected = {"owner": "coordinator", "lane": 0, "generation": 1, "key": new.address, "administrator": None}
    assert told == [expected]
    assert f"Key      of coordinator: {new.address} from" in foedus("status", run, "--state", world.state).out
    assert "expected --request or --new-key, got neither" in foedus("members", "rotate", run).error
