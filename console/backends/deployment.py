"""One run on a deployment: submitted to the coordinator's SuperLink, watched, and taken up again after a loss.

SuperLink and ServerApp are processes of `foedus coordinator`, on this machine. Either may be killed. Then this waits
until the SuperLink answers and nobody writes the run, and submits it once more, to go on behind its last record. A run
that ends with a reason of its own is not tried again.
"""

import re
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil

from console.backends import processes
from console.backends.children import flower_environment
from console.backends.flower import FlowerCommand, write_overrides
from console.views.progress import Watcher
from console.views.tables import screen, show
from core.config import RunConfig
from core.deployment import CoordinatorSettings
from core.errors import RunError
from core.escape import one_line, redacted
from core.storage.lock import holder
from core.storage.state_folder import State

CONNECTION = "federation"
"""The SuperLink's name in the settings of Flower's command line."""
_POLL_SECONDS = 0.5
_HEALTH_SECONDS = 5.0
_START_SECONDS = 180.0
"""Until a ServerApp holds the run's lock: it imports a model's libraries, on a busy machine."""
_RETURN_SECONDS = 600.0
_LEAVE_SECONDS = 30.0
_GONE = "the ServerApp was lost"
_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)$", re.MULTILINE)
"""How Python ends a traceback."""
_MOST_LOSSES = 5
"""Losses in a row without a record between them: something other than chance ends the run."""


@dataclass(frozen=True)
class DeployedRun:
    """A run on the SuperLink of a coordinator's folder."""

    config: RunConfig
    settings: CoordinatorSettings
    watch: Watcher

    @property
    def state(self) -> State:
        """The state folder that its ServerApp writes."""
        return State.of(self.config)

    @property
    def flower(self) -> FlowerCommand:
        """Flower's command line, connected to the SuperLink."""
        home = self.settings.state / "flower"
        return FlowerCommand(home, flower_environment(home))

    def run(self) -> None:
        """Until the run has ended; raises RunError when its processes are lost too often, or for too long."""
        losses, records = 0, -1
        while True:
            self.wait_for_superlink()
            lost = self.follow(self.submit())
            known = self.records()
            if losses and self.watch.failure and known == records:
                # Nodes that answer the last ServerApp, or were lost with it, may not be back when the next one asks.
                lost = f"after a loss, {self.watch.failure}"
            if not lost:
                return
            losses = 1 if known > records else losses + 1
            records = known
            if losses >= _MOST_LOSSES:
                raise RunError(f"{lost}, {losses} times without a round between: `foedus coordinator`'s log says why")
            show(f"{lost}: going on behind round {known}", on=screen(stderr=True))
            self.end_writer()
            self.watch.go_on()

    def submit(self) -> str:
        """Submit the run; returns Flower's id of it."""
        config = replace(self.config, resume=self.state.run(self.config.run).started)
        overrides = write_overrides(config, self.flower.home / f"{config.run}.toml")
        app = str(self.settings.state / "app")
        return str(self.flower.flwr("run", app, CONNECTION, "--run-config", str(overrides))["run-id"])

    def follow(self, run_id: str) -> str:
        """Watch the run to its end; returns what was lost, or "" when it has ended by itself."""
        try:
            lost = self._lost()
        except BaseException:  # interrupted, or its own failure: nothing of it stays, and `--resume` goes on
            self.flower.said("stop", run_id, CONNECTION)
            self.end_writer()
            raise
        # On a full disk it writes no event that says why, but Flower has what it printed.
        reason = last_error(self.flower.said("log", run_id, CONNECTION, "--show").stdout) if lost == _GONE else ""
        return f"{lost}: {reason}" if reason else lost

    def _lost(self) -> str:
        started, asked, seen = time.monotonic(), 0.0, False
        while not self.watch():
            time.sleep(_POLL_SECONDS)
            writing = self.writer() is not None
            seen = seen or writing
            if seen and not writing:
                # Its last event may have come since the log was read.
                return "" if self.watch() else _GONE
            if not seen and time.monotonic() - started > _START_SECONDS:
                return "the ServerApp did not start"
            if time.monotonic() - asked > _HEALTH_SECONDS:
                asked = time.monotonic()
                if not self.healthy():
                    return "the SuperLink was lost"
        return ""

    def writer(self) -> int | None:
        """The process that writes the run now."""
        pid = holder(self.state.lock(self.config.run))
        return pid if pid and processes.alive(pid) and "flwr-serverapp" in _command(pid) else None

    def end_writer(self) -> None:
        """Wait for a ServerApp that is left behind, and end it when it stays."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        while (pid := self.writer()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if pid:
            with suppress(psutil.NoSuchProcess):  # it has ended since
                psutil.Process(pid).kill()

    def records(self) -> int:
        """The rounds that the run has recorded."""
        run = self.state.run(self.config.run)
        return sum(1 for _ in run.records()) if run.started else 0

    def wait_for_superlink(self) -> None:
        """Return once it answers; raises RunError when it does not in ten minutes."""
        deadline, told = time.monotonic() + _RETURN_SECONDS, False
        while not self.healthy():
            if time.monotonic() > deadline:
                raise RunError(
                    f"SuperLink on 127.0.0.1:{self.settings.control_port}: expected an answer, got none in "
                    f"{_RETURN_SECONDS:g} s: start `foedus coordinator {self.settings.folder}`, then `--resume` goes on"
                )
            if not told:
                told = True
                show("waiting for the SuperLink of `foedus coordinator` …", on=screen(stderr=True))
            time.sleep(_POLL_SECONDS)

    def healthy(self) -> bool:
        """Whether the SuperLink answers."""
        certificate = self.settings.state / "link" / "certificate.pem"
        return certificate.exists() and answers(self.settings.control_port, certificate)


def last_error(log: str) -> str:
    """The message of the last traceback in what a process printed; "" where there is none."""
    found = _ERROR.findall(log)
    return one_line(redacted(found[-1])) if found else ""


def answers(port: int, certificate: Path) -> bool:
    """Whether the SuperLink on this port of the loopback, which has this certificate, is healthy."""
    try:
        context = ssl.create_default_context(cafile=certificate)
        return httpx.get(f"https://127.0.0.1:{port}/health", verify=context, timeout=2.0).is_success
    except (httpx.HTTPError, OSError):
        return False


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:  # it has ended, or is another user's
        return ""
