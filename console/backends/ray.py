"""One run on Flower's Ray backend, under a SuperLink of its own.

Flower's own local SuperLink outlives its run, freezes the environment of its first user and is shared by every
checkout; `flwr run --stream` exits 0 when the run fails. So each `foedus run` starts a SuperLink on a free port with
a FLWR_HOME that is thrown away, submits the staged app, watches the event log, asks Flower for the verdict, and ends
every process it started, however it leaves.
"""

import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx

from console.backends import processes
from console.backends.app_folder import stage
from console.backends.children import QUIET, free_port, script
from console.backends.flower import FlowerCommand, write_overrides
from console.views.progress import Watcher
from core.config import RunConfig
from core.errors import RunError, UsageError
from core.storage.lock import holder
from core.storage.state_folder import State
from llm.bases import SHARE

_START_SECONDS = 60.0
_POLL_SECONDS = 0.2
_SILENCE_SECONDS = 10.0
_LINGER_SECONDS = 60.0
_STARTS = 4
"""Tries to start Ray."""
_LISTING_SECONDS = 30.0
"""NVIDIA's tool takes a second; so much longer, its driver does not answer."""
_LATE = "timed out during startup"
_EXCEPTION = re.compile(r"\b\w*(Error|Exception): (?!An error was encountered|Simulation Runtime crashed)")
"""But not one that Flower raises because of another."""

CPUS = "FOEDUS_CPUS"
"""The environment variable with the processors that a simulation may take; without it Ray takes the machine's."""

T = TypeVar("T")


@dataclass(frozen=True)
class SuperLink(FlowerCommand):
    """A running SuperLink: its address and the process, and Flower's command line with its home."""

    address: str
    process: subprocess.Popen[bytes]

    def follow(self, run_id: str, watch: Watcher, lock: Path) -> None:
        """Wait for the run's end; raises the ServerApp's own error, RunError unless Flower says that it was completed.

        `watch` says whether the event log has ended, `lock` names the process that writes the run.
        """
        asked = time.monotonic()
        while True:
            ended = watch()
            # Flower would first wait for every message that its actors have, which on a busy machine takes minutes.
            if watch.failure:
                raise watch.failure
            if self.process.poll() is not None:
                raise RunError(f"the SuperLink ended with status {self.process.returncode}: `--resume` goes on")
            # Asking Flower costs the start of its CLI, so it is asked when there is reason to: the process that writes
            # the run, which its lock names, is no more, or lingers long after its end.
            if (writer := holder(lock)) is not None and processes.alive(writer):
                patience = _LINGER_SECONDS if ended else math.inf
            else:
                patience = 0.0 if ended else _SILENCE_SECONDS
            if time.monotonic() - asked > patience:
                if self.completed(run_id):
                    watch()
                    return
                asked = time.monotonic()
            time.sleep(_POLL_SECONDS)

    def completed(self, run_id: str) -> bool:
        """Whether the run is over; raises RunError when it is over and was not completed."""
        status = str(self.flwr("list", "foedus", "--run-id", run_id)["runs"][0]["status"])
        if status.startswith("finished") and status != "finished:completed":
            log = telling_line(self.said("log", run_id, "foedus", "--show").stdout) or self.log()
            raise RunError(f"expected Flower to complete the run, got {status}: {log}")
        return status == "finished:completed"

    def wait_until_healthy(self) -> None:
        """Return once it answers; raises RunError when it ends, or does not answer in time."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"http://{self.address}/health", timeout=1.0).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(_POLL_SECONDS)
        raise RunError(f"the SuperLink did not start on {self.address}: {self.log()}")

    def log(self) -> str:
        """The line of its own log that says what went wrong."""
        text = (self.home / "superlink.log").read_text(encoding="utf-8", errors="replace")
        return telling_line(text) or "its log is empty"


def run_simulation(config: RunConfig, nodes: int, watch: Watcher) -> None:
    """Run a federation to its end.

    `watch` is called a few times a second and returns True when the event log says that the ServerApp has ended.
    Raises the ServerApp's own error, or RunError when Flower's verdict is not that the run was completed.
    """
    # A ServerApp starts beside Ray: it may have founded the federation when Flower gives it up for Ray's sake.
    while_ray_is_late(lambda again: _run_once(replace(config, resume=config.resume or again), nodes, watch))


def while_ray_is_late(run: Callable[[bool], T]) -> T:
    """The result of `run`, which is told whether it is done again: Ray's own processes have 30 seconds to start.

    No setting changes that, and on a busy machine they take longer. Raises what the last try raises.
    """
    for attempt in range(_STARTS - 1):
        try:
            return run(attempt > 0)
        except RunError as error:
            if _LATE not in str(error):
                raise
    return run(True)


def _run_once(config: RunConfig, nodes: int, watch: Watcher) -> None:
    state, federation = State.of(config), resources(nodes)
    run = state.run(config.run).folder
    prefix = f"foedus-{hashlib.sha256(bytes(run)).hexdigest()[:16]}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):  # of this run's, by a CLI that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix) as home, superlink(Path(home), run) as link:
        app = stage(link.home / "app")
        overrides = write_overrides(config, link.home / "run.toml")
        settings = "--run-config", str(overrides), "--federation-config", federation
        answer = link.flwr("run", str(app), "foedus", *settings)
        link.follow(str(answer["run-id"]), watch, state.lock(config.run))


def resources(nodes: int) -> str:
    """What Flower is told of a simulation's nodes: each has a processor and a share of the GPUs.

    As many train at a time as there are processors. Shares above one are whole: a node spreads a base that is larger
    than a GPU over those that it has. A lesser one is of a single GPU, and each GPU has room for as many nodes as the
    fullest: Flower counts what all GPUs have together, and would wait for ever for a node that Ray finds no room for.
    Raises UsageError for a number of processors that is none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = len([name for name in visible.split(",") if name.strip() not in {"", "-1"}])
    else:
        gpus = len(_listed_gpus())
    # Without a share Ray hides every GPU from a node, which then trains on the processor.
    told = f"num-supernodes={nodes} client-resources-num-cpus=1"
    if gpus:
        # In the ten-thousandths in which Ray counts, rounded down.
        share = gpus // nodes or 10_000 // math.ceil(nodes / gpus) / 10_000
        told += f" client-resources-num-gpus={share:g}"
    limit = os.environ.get(CPUS, "")
    if limit and (not limit.isdecimal() or not int(limit)):
        raise UsageError(f"{CPUS}: expected a number of processors, got {limit!r}")
    return told + (f" init-args-num-cpus={int(limit)}" if limit else "")


def _listed_gpus() -> list[str]:
    """A line for each GPU of this machine. NVIDIA's tool is asked, since importing torch takes seconds."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607 - on PATH
            capture_output=True,
            text=True,
            check=False,
            timeout=_LISTING_SECONDS,
        )
    except OSError:
        return []
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"nvidia-smi: expected the GPUs of this machine within {_LISTING_SECONDS:g} s, got nothing; "
            "CUDA_VISIBLE_DEVICES='' runs without them"
        ) from error
    return [line for line in done.stdout.splitlines() if line.startswith("GPU ")]


@contextmanager
def superlink(home: Path, run: Path) -> Iterator[SuperLink]:
    """Start a SuperLink with this home; end it, and everything below it, on leaving."""
    port = free_port()
    environment = {SHARE: "1", **os.environ, **QUIET, **processes.mark(run), "FLWR_HOME": str(home)}
    # Flower starts its parts by name: they must be those beside this interpreter.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    address = f"127.0.0.1:{port}"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "foedus"\n\n[superlink.foedus]\naddress = "{address}"\ninsecure = true\n',
        encoding="utf-8",
    )
    options = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "superlink.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - Flower's own script with our arguments
            [*script("flower-superlink"), *options, "--disable-runtime-dependency-installation"],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the CLI alone, which then ends everything in order
        )
    try:
        link = SuperLink(home, environment, address, process)
        link.wait_until_healthy()
        yield link
    finally:
        processes.end_all(run)
        process.wait()  # it has ended: as a child of this process it stays a zombie until somebody asks


def telling_line(log: str) -> str:
    """The line of a log that says what went wrong: the last exception, else the last error, else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    exceptions = [line for line in lines if _EXCEPTION.search(line)]
    errors = [line for line in lines if "ERROR" in line]
    return next((found[-1] for found in (exceptions, errors, lines) if found), "")
