"""What `foedus members join`, `leave` and `sign-leave` do on a run, from the command line."""

import shutil
from pathlib import Path

import pytest

from core.canonical import from_json
from core.membership import Leave
from core.signed import Signed
from tests import federation as f
from tests.commands import World, foedus
from tests.console.test_request import NODE, agreed

pytestmark = pytest.mark.chain


def test_an_organisation_leaves_a_finished_run_and_the_record_holds(finished: World, tmp_path: Path) -> None:
    world = World(finished.base, finished.data, tmp_path / "state")
    shutil.copytree(finished.state, world.state)
    run = world.command("status").json["run"]
    done = world.command("members leave", run, "--organisation", "coding")
    assert done.json["members"] == ["financial", "medical"]
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
