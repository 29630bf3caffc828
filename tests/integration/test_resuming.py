"""A federation on a deployment, by one command: shown live, taken up again after a loss, with a true exit status."""

import os
import signal

import pytest

from core.storage.lock import holder
from core.storage.state_folder import State
from tests.commands import PATIENCE_SECONDS, Done, foedus, started
from tests.integration.deployed import Deployment, until
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]


class Command:
    """`foedus run --federation`, in a process of its own."""

    def __init__(self, deployment: Deployment, *options: object) -> None:
        self.state = State(deployment.world.state)
        before = {path.stem for path in (self.state.folder / "settings").glob("*.json")}
        self.process = started("run", "--federation", deployment.coordinator, "--json", *options)
        until(lambda: self._new(before) is not None, deployment.folder / "coordinator.log")
        self.run = str(self._new(before))

    def _new(self, before: set[str]) -> str | None:
        known = {path.stem for path in (self.state.folder / "settings").glob("*.json")}
        return next(iter(known - before), None)

    def recorded(self, rounds: int) -> bool:
        """Whether so many rounds are recorded."""
        run = self.state.run(self.run)
        return run.started and sum(1 for _ in run.records()) >= rounds

    def writer(self) -> int:
        """The process id of its ServerApp."""
        return holder(self.state.lock(self.run)) or 0

    def end(self) -> Done:
        """What has become of it."""
        try:
            out, err = self.process.communicate(timeout=3 * PATIENCE_SECONDS)  # a loss costs two starts of a ServerApp
            return Done(self.process.returncode, out, err)
        finally:
            self.process.kill()


def test_one_command_runs_a_federation_and_shows_its_rounds(deployment: Deployment) -> None:
    command = Command(deployment, "--rounds", 1)
    done = command.end()
    assert done.code == 0, done.err + deployment.log("coordinator")[-3000:]
    assert (done.json["status"], done.json["run"], len(done.json["rounds"])) == ("completed", command.run, 1)
    assert "round 1 of 1: 3 organisations asked" in done.err
    assert "round 1 of 1: medical trained" in done.err
    assert set(done.json["organisations"]) == {"coding", "financial", "medical"}
    audit = foedus("verify", command.run, "--state", deployment.world.state, "--json").json
    assert (audit["ok"], audit["failures"]) == (True, [])


def test_a_run_that_fails_fails_the_command_and_says_why(deployment: Deployment) -> None:
    done = Command(deployment, "--set", "max-length=4096", "--set", "batch-size=1", "--rounds", 1).end()
    assert done.code != 0
    assert "max-length: expected at most" in done.error


def test_a_serverapp_that_is_killed_is_started_again_behind_its_last_record(deployment: Deployment) -> None:
    command = Command(deployment, "--rounds", 3)
    until(lambda: command.recorded(1), deployment.folder / "coordinator.log", 4)
    os.kill(command.writer(), signal.SIGKILL)
    done = command.end()
    assert done.code == 0, done.err + deployment.log("coordinator")[-3000:]
    assert "the ServerApp was lost: going on behind round" in done.err
    assert [entry["round"] for entry in done.json["rounds"]] == [1, 2, 3]


def test_a_superlink_that_is_killed_is_waited_for(deployment: Deployment) -> None:
    command = Command(deployment, "--rounds", 3)
    until(lambda: command.recorded(1), deployment.folder / "coordinator.log", 4)
    coordinator = deployment.command("coordinator", deployment.coordinator)
    deployment.part_of("coordinator", deployment.coordinator, "flower-superlink").kill()
    coordinator.wait(60)
    deployment.start_again("coordinator", deployment.coordinator)
    done = command.end()
    assert done.code == 0, done.err + deployment.log("coordinator")[-3000:]
    assert [entry["round"] for entry in done.json["rounds"]] == [1, 2, 3]
    assert "was lost: going on behind round" in done.err
