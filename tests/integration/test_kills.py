"""Whatever is killed, and whenever: a resumed run ends with the digest of one that nobody disturbed."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from console.backends import processes
from core.storage.events import EventLog
from core.storage.lock import holder
from core.storage.state_folder import State
from tests.commands import PATIENCE_SECONDS, Done, World, ended, started

ROUNDS = 3
pytestmark = [pytest.mark.slow, pytest.mark.chain]

Victim = Callable[["Run"], psutil.Process]


class Run:
    """A run in a process of its own."""

    def __init__(self, world: World, *options: object) -> None:
        self.state = State(world.state)
        self.process = started(*world.run(*options, rounds=ROUNDS))
        self.name = self._name()

    def _name(self) -> str:
        return until(
            lambda: next((p.stem for p in (self.state.folder / "settings").glob("*.json")), None), self.process
        )

    def wait_for(self, event: str, number: int) -> None:
        """Until the event log says that an event has happened in a round."""
        path = self.state.events(self.name)

        def happened() -> bool:
            events = [e for e in EventLog.read(path)[0] if e["event"] == event]
            return any(e.get("round") == number for e in events)

        until(happened, self.process)

    def marked(self, word: str) -> psutil.Process:
        """The process of this run whose command line contains a word."""
        folder = self.state.run(self.name).folder
        found = [p for p in processes.marked(folder) if word in " ".join(p.cmdline())]
        return found[0]


def until(happens: Callable[[], object], process: "subprocess.Popen[str]") -> object:
    """Wait until something holds, which it must while the process lives."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := happens()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def cli(run: Run) -> psutil.Process:
    return psutil.Process(run.process.pid)


def server_app(run: Run) -> psutil.Process:
    pid = holder(run.state.lock(run.name))
    assert pid
    return psutil.Process(pid)


def superlink(run: Run) -> psutil.Process:
    return run.marked("flower-superlink")


def ray_actor(run: Run) -> psutil.Process:
    return run.marked("ray::")


def chain(run: Run) -> psutil.Process:
    path = run.state.folder / "chain" / "embedded" / "service.json"
    return psutil.Process(json.loads(path.read_text(encoding="utf-8"))["pid"])


@pytest.fixture(scope="module")
def undisturbed(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The last aggregate of a run in one process that nobody disturbs."""
    return last_aggregate(World(base, data, tmp_path_factory.mktemp("undisturbed")).inline(rounds=ROUNDS))


def last_aggregate(done: Done) -> str:
    assert done.code == 0, done.err
    assert [entry["round"] for entry in done.json["rounds"]] == list(range(1, ROUNDS + 1))
    return str(done.json["rounds"][-1]["aggregate"])


@pytest.mark.parametrize(
    ("victim", "backend"),
    [(cli, "ray"), (server_app, "inline"), (superlink, "inline"), (ray_actor, "ray"), (chain, "inline")],
)
def test_what_is_killed_does_not_change_what_is_learnt(
    victim: Victim, backend: str, world: World, undisturbed: str
) -> None:
    run = Run(world)
    run.wait_for("round-started", 2)
    victim(run).send_signal(signal.SIGKILL)
    first = ended(run.process)
    if victim is not cli:
        assert first.code == 0 or first.error
    done = world.resume(run.name, backend)
    assert last_aggregate(done) == undisturbed
    assert processes.marked(run.state.run(run.name).folder) == []
    report = world.command("verify", "--strict").json
    assert report["ok"], report["failures"]
    assert report["recomputed"] == ROUNDS


def test_an_agent_goes_on_from_its_saved_table_when_its_client_is_killed(
    new_world: Callable[[], World],
) -> None:
    """The organisations' processes are Ray's actors: with them go the agents, but for what they have saved."""
    agents = ("--participation", "q-learning")
    quiet, world = new_world(), new_world()
    expected = last_aggregate(quiet.inline(*agents, rounds=ROUNDS))
    run = Run(world, *agents)
    run.wait_for("round-started", 2)
    begun = tables(world)
    assert begun
    ray_actor(run).send_signal(signal.SIGKILL)
    first = ended(run.process)
    assert first.code == 0 or first.error
    assert last_aggregate(world.resume(run.name)) == expected
    assert tables(world) == tables(quiet)
    assert begun.items() <= tables(world).items()
    assert {name for _, name in tables(world)} >= {f"G00000-R{ROUNDS:05}.json"}
    assert world.command("verify", "--strict").json["ok"]


def tables(world: World) -> dict[tuple[str, str], bytes]:
    """What the agents have saved, by organisation and file."""
    return {(path.parent.name, path.name): path.read_bytes() for path in world.state.glob("agents/*/*/*.json")}


@pytest.mark.parametrize("moment", range(10))
def test_ten_random_moments(moment: int, world: World, undisturbed: str) -> None:
    """Kill the one process that is CLI, server and clients, after a random time of which much is the start."""
    run = Run(world, "--backend", "inline")
    time.sleep(random.Random(moment).uniform(0.0, 12.0))  # noqa: S311 - a moment need not be unpredictable
    run.process.kill()
    ended(run.process)
    assert last_aggregate(world.resume(run.name)) == undisturbed
    assert world.command("verify", "--strict").json["ok"]


@pytest.mark.parametrize("backend", ["ray", "inline"])
def test_there_are_never_two_writers(backend: str, world: World, undisturbed: str) -> None:
    run = Run(world, "--backend", backend)
    run.wait_for("round-started", 1)
    second = world.resume(run.name)
    assert second.code == 1
    assert f"run {run.name} is being written by process {run.process.pid}" in second.error
    assert last_aggregate(ended(run.process)) == undisturbed
