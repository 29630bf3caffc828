"""How long a round of a deployment takes: here, and in an earlier version of this project on the same machine.

    python -m benchmarks.rounds [--against FOLDER] [--rounds 4] [--steps 5] [--seed 7]

A SuperLink, a coordinator and three organisations on foedus-tiny and the samples, each node with processes of its own,
as docs/start/several-machines.md starts them. `--against` is a checkout of the earlier version: its code runs there,
with the same settings. A version without a resident worker starts a process for every message. Seconds are those
between the first message of the second round and the last loss, by the number of those rounds, so that libraries and
bases are loaded where the version keeps them. Time is on the wall: use a machine that does nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import assets
from benchmarks import arguments, report
from console.backends.children import flower_environment, free_port, script
from core import keys
from core.storage.events import EventLog
from core.storage.state_folder import State

TARGET = 0.3
"""Longest round, relative to the earlier version's."""
HERE = Path(__file__).parents[1]
ORGANISATIONS = ("coding", "financial", "medical")
_STAGE = "import sys; from pathlib import Path; from console.backends.app_folder import stage; stage(Path(sys.argv[1]))"
_PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True)
class Version:
    """A checkout of this project, whose code the processes of a deployment run."""

    checkout: Path
    folder: Path

    @property
    def resident(self) -> bool:
        """Whether a worker stays beside a SuperNode, or every message has a process of its own."""
        return (self.checkout / "client_app" / "worker.py").exists()

    def environment(self, home: Path) -> dict[str, str]:
        """Of a process that imports the checkout and no other."""
        return {**os.environ, **flower_environment(home), "PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": "1"}

    @contextmanager
    def process(self, command: list[Any], name: str) -> Iterator[None]:
        """A process in the background, and what it starts; its log is NAME.log."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("wb") as log:
            started = subprocess.Popen(
                [*map(str, command)], cwd=home, env=self.environment(home), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            started.terminate()
            started.wait(timeout=60)

    def node(self, name: str, address: str, coordinator: str) -> list[Any]:
        """The command of an organisation's node."""
        home = self.folder / f"node-{name}"
        home.mkdir()
        keys.create(home / "own.key")
        place = {"organisation": name, "data": assets.samples(), "key-file": home / "own.key", "state": home / "state"}
        place |= {"base": "foedus-tiny"}
        if self.resident:
            place |= {"superlink": address, "pin-coordinator": coordinator}
            (home / "node.toml").write_text("".join(f"{key} = {json.dumps(str(v))}\n" for key, v in place.items()))
            return [*script("foedus"), "node", home]
        config = " ".join(f"{key}={json.dumps(str(value))}" for key, value in place.items())
        options = ["--insecure", "--superlink", address, "--port", free_port(), "--node-config", config]
        return [*script("flower-supernode"), *options]

    def seconds(self, settings: Mapping[str, Any]) -> dict[str, float]:
        """Run a federation; the seconds until the second round, and those of each round from then on."""
        port, link = free_port(), self.folder / "link"
        link.mkdir(parents=True)
        (link / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        coordinator, state = keys.create(self.folder / "own.key"), self.folder / "state"
        own = {"run": "timed", "state": str(state), "coordinator-key": str(self.folder / "own.key"), **settings}
        (link / "run.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in own.items()))
        app, environment = self.folder / "app", self.environment(link)
        subprocess.run([sys.executable, "-c", _STAGE, app], env=environment, cwd=link, check=True)
        serving = [*script("flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", port]
        with ExitStack() as stack:
            stack.enter_context(self.process([*serving, "--disable-runtime-dependency-installation"], "link"))
            _wait_for_superlink(port)
            for name in ORGANISATIONS:
                command = self.node(name, f"127.0.0.1:{port}", coordinator.address)
                stack.enter_context(self.process(command, f"node-{name}"))
            started = time.time()
            submit = [*script("flwr"), "run", app, "here", "--run-config", link / "run.toml"]
            subprocess.run([*map(str, submit)], env=environment, cwd=link, check=True, stdout=subprocess.DEVNULL)
            events = _events(State(state).events("timed"))
        return _seconds(events, started)


def _wait_for_superlink(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1.0).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise TimeoutError(f"no SuperLink on port {port}")


def _events(path: Path) -> list[dict[str, Any]]:
    """The events of a run, once it has finished."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        events = EventLog.read(path)[0]
        if failed := [event for event in events if event["event"] == "failed"]:
            raise RuntimeError(failed[-1]["error"])
        if events and events[-1]["event"] == "finished":
            return events
        time.sleep(0.5)
    raise TimeoutError(f"the run did not end: {path}")


def _seconds(events: list[dict[str, Any]], started: float) -> dict[str, float]:
    begun = {event["round"]: event["time"] for event in events if event["event"] == "round-started"}
    ended = max(event["time"] for event in events if event["event"] == "evaluated")
    return {
        "seconds_to_second_round": begun[2] - started,
        "seconds_a_round": (ended - begun[2]) / (len(begun) - 1),
        "seconds_in_all": ended - started,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--rounds", type=arguments.count(), default=4)
    parser.add_argument("--steps", type=arguments.count(), default=5, help="optimiser steps of a round")
    parser.add_argument("--seed", type=arguments.count(0), default=7)
    options = parser.parse_args()
    settings = {
        "base": "foedus-tiny", "organisations": len(ORGANISATIONS), "quorum": len(ORGANISATIONS),
        "rounds": options.rounds, "local-steps": options.steps, "evaluate-limit": 8, "seed": options.seed,
        "participation": "all", "batch-size": 4, "max-length": 256, "rank": 32, "alpha": 64.0,
    }  # fmt: skip
    versions = {"now": HERE} | ({"earlier": options.against.resolve()} if options.against else {})
    figures: dict[str, Any] = {"target_ratio": TARGET}
    for name, checkout in versions.items():
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = Version(checkout, Path(folder)).seconds(settings)
    command = f"python -m benchmarks.rounds --rounds {options.rounds} --steps {options.steps}"
    if options.against:
        figures["ratio"] = figures["now"]["seconds_a_round"] / figures["earlier"]["seconds_a_round"]
        command += " --against CHECKOUT"
    report.write("rounds", figures, command, options.seed)
    rows = [(name, *figures[name].values()) for name in versions]
    report.print_table(("version", "to round 2, s", "a round, s", "in all, s"), rows)
    if options.against:
        print(f"Target: a round ≤ {TARGET}× the earlier version's. Measured: {figures['ratio']:.3f}×.")


if __name__ == "__main__":
    main()
