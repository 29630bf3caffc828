"""One run on Flower's Ray backend, under a SuperLink of its own.

Flower's own local SuperLink outlives its run, freezes the environment of whoever came first and is shared by every
checkout; `flwr run --stream` exits 0 when the run fails. So each `foedus run` starts a SuperLink on a free port with
a FLWR_HOME that is thrown away, submits the staged app, watches the event log, asks Flower for the verdict, and ends
every process it started, however it leaves.
"""

import hashlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from console.backends import processes
from console.backends.app_folder import stage
from core.config import RunConfig
from core.errors import RunError
from core.storage.lock import holder
from core.storage.state_folder import State

_START_SECONDS = 60.0
_POLL_SECONDS = 0.2
_SILENCE_SECONDS = 10.0
_LINGER_SECONDS = 60.0
_EXCEPTION = re.compile(r"\b\w*(Error|Exception): ")
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class SuperLink:
    """A running SuperLink: its address, its Flower home, and the process."""

    address: str
    home: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """Ask Flower's CLI, which answers in JSON; raises RunError with its last line when it does not."""
        command = [*_script("flwr"), *arguments, "--format", "json"]
        done = subprocess.run(  # noqa: S603 - Flower's own script with our arguments
            command, cwd=self.home, env=dict(self.environment), capture_output=True, text=True, check=False
        )
        try:
            answer: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError as error:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            raise RunError(f"flwr {arguments[0]} failed: {lines[-1]}") from error
        if not answer.get("success", True):
            raise RunError(f"flwr {arguments[0]} failed: {answer.get('error-message', answer)}")
        return answer


def run_simulation(config: RunConfig, nodes: int, watch: Callable[[], bool]) -> None:
    """Run a federation to its end.

    `watch` is called a few times a second and returns True when the event log says that the ServerApp has ended.
    Raises RunError when Flower's verdict is not that the run was completed.
    """
    state = State.of(config)
    run = state.run(config.run).folder
    with _home(run) as home, _superlink(home, run) as link:
        app = stage(link.home / "app")
        overrides = link.home / "run.toml"
        overrides.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in config.to_flat().items()), encoding="utf-8")
        resources = f"num-supernodes={nodes} client-resources-num-cpus=1"
        answer = link.flwr("run", str(app), "foedus", "--run-config", str(overrides), "--federation-config", resources)
        _follow(link, str(answer["run-id"]), watch, state.lock(config.run))


@contextmanager
def _home(run: Path) -> Iterator[Path]:
    """A temporary folder for Flower; what a CLI that was killed left of this run's is removed."""
    prefix = f"foedus-{hashlib.sha256(bytes(run)).hexdigest()[:16]}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        yield Path(folder)


def _follow(link: SuperLink, run_id: str, watch: Callable[[], bool], lock: Path) -> None:
    """Wait for the run's end; raises RunError unless Flower says that it was completed.

    Asking Flower costs the start of its CLI, so it is asked when there is reason to: the writer of the run, whom its
    lock names, is no more, or lingers long after its end.
    """
    asked = time.monotonic()
    while True:
        ended = watch()
        if link.process.poll() is not None:
            raise RunError(f"the SuperLink ended with status {link.process.returncode}: `--resume` goes on")
        if time.monotonic() - asked > _patience(ended, _is_alive(holder(lock))):
            if _finished(link, run_id):
                watch()
                return
            asked = time.monotonic()
        time.sleep(_POLL_SECONDS)


def _patience(ended: bool, writing: bool) -> float:
    """Seconds until Flower is asked (again): by what the event log and the lock say."""
    if writing:
        return _LINGER_SECONDS if ended else math.inf
    return 0.0 if ended else _SILENCE_SECONDS


def _is_alive(pid: int | None) -> bool:
    return pid is not None and processes.alive(pid)


def _finished(link: SuperLink, run_id: str) -> bool:
    """Ask Flower whether the run is over; raises RunError when it is but was not completed."""
    status = str(link.flwr("list", "foedus", "--run-id", run_id)["runs"][0]["status"])
    if status.startswith("finished") and status != "finished:completed":
        raise RunError(f"Flower says the run is {status}: {_run_log(link, run_id)}")
    return status == "finished:completed"


@contextmanager
def _superlink(home: Path, run: Path) -> Iterator[SuperLink]:
    """Start a SuperLink with this home; end it, and everything below it, on leaving."""
    port = _free_port()
    environment = {**os.environ, **_QUIET, **processes.mark(run), "FLWR_HOME": str(home)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    address = f"127.0.0.1:{port}"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "foedus"\n\n[superlink.foedus]\naddress = "{address}"\ninsecure = true\n',
        encoding="utf-8",
    )
    with (home / "superlink.log").open("wb") as log:
        options = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(  # noqa: S603 - Flower's own script with our arguments
            [*_script("flower-superlink"), *options, "--disable-runtime-dependency-installation"],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    link = SuperLink(address, home, environment, process)
    try:
        _wait_until_healthy(link)
        yield link
    finally:
        processes.end_all(run)
        process.wait()


def _wait_until_healthy(link: SuperLink) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and link.process.poll() is None:
        try:
            if httpx.get(f"http://{link.address}/health", timeout=1.0).is_success:
                return
        except httpx.HTTPError:
            time.sleep(_POLL_SECONDS)
    raise RunError(f"the SuperLink did not start on {link.address}: {_server_log(link)}")


def _run_log(link: SuperLink, run_id: str) -> str:
    """What the run itself logged of its end, else what the SuperLink did."""
    command = [*_script("flwr"), "log", run_id, "foedus", "--show"]
    done = subprocess.run(  # noqa: S603 - Flower's own script with our arguments
        command, cwd=link.home, env=dict(link.environment), capture_output=True, text=True, check=False
    )
    return telling_line(done.stdout) or _server_log(link)


def _server_log(link: SuperLink) -> str:
    return (
        telling_line((link.home / "superlink.log").read_text(encoding="utf-8", errors="replace")) or "its log is empty"
    )


def telling_line(log: str) -> str:
    """The line of a log that says what went wrong: the last exception, else the last error, else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    exceptions = [line for line in lines if _EXCEPTION.search(line)]
    errors = [line for line in lines if "ERROR" in line]
    return next((found[-1] for found in (exceptions, errors, lines) if found), "")


def _script(name: str) -> list[str]:
    """A console script of this environment, run by this interpreter."""
    return [sys.executable, str(Path(sys.executable).parent / name)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
