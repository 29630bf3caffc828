"""Harm to a deployment while it trains: a run to wait for, and ways to stop, starve and fill up what it runs on."""

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from core.rounds import RoundRecord
from core.storage.events import EventLog
from core.storage.state_folder import State
from tests.commands import foedus
from tests.integration.deployed import Deployment, until

PATIENT = {"quorum": 2, "grace": 2.0, "timeout": 240.0}
"""A round needs two of three, waits for the third twice as long as they took, and for the second some minutes."""


class Live:
    """A run of a deployment that goes on while a test does harm."""

    def __init__(self, deployment: Deployment, name: str, **settings: object) -> None:
        self.deployment, self.name = deployment, name
        self.settings = PATIENT | settings
        self.state = State(Path(str(settings.get("state", deployment.world.state))))
        self.ends = 0
        self.start()

    def start(self, **changes: object) -> None:
        """Submit it, once more after it has ended."""
        self.ends += 1
        self.deployment.start(self.deployment.app, self.name, **self.settings | changes)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What was told of a kind."""
        return [event for event in EventLog.read(self.state.events(self.name))[0] if event["event"] == kind]

    def wait_for(self, kind: str, number: int = 0, **fields: object) -> dict[str, Any]:
        """The first event of a kind in a round or a later one, with these fields, once it is there."""

        def happened() -> list[dict[str, Any]]:
            return [
                event
                for event in self.events(kind)
                if event.get("round", number) >= number and fields.items() <= event.items()
            ]

        log = self.deployment.folder / "coordinator.log"
        until(lambda: bool(happened()) or len(self.events("finished") + self.events("failed")) >= self.ends, log, 2)
        assert happened(), self.events("finished") + self.events("failed")
        return happened()[0]

    def end(self) -> dict[str, Any]:
        """The event that it ends with."""
        log = self.deployment.folder / "coordinator.log"
        until(lambda: len(self.events("finished") + self.events("failed")) >= self.ends, log, 4)
        return max(self.events("finished") + self.events("failed"), key=lambda event: float(event["time"]))

    def finish(self) -> list[RoundRecord]:
        """Its records, once it has finished, and an audit with the chain found nothing."""
        ended = self.end()
        assert ended["event"] == "finished", ended
        audit = foedus("verify", self.name, "--state", self.state.folder, "--json").json
        assert (audit["ok"], audit["failures"], audit["attested"]) == (True, [], 0)
        return [signed.value for signed in self.state.existing(self.name).records()]

    def names(self, record: RoundRecord) -> set[str]:
        """Whom a record admits."""
        names = self.state.existing(self.name).genesis.names
        return {names[admitted.organisation] for admitted in record.admitted}

    def late(self, record: RoundRecord) -> set[str]:
        """Whom a record names as late."""
        names = self.state.existing(self.name).genesis.names
        return {names[organisation] for organisation in record.late}

    def rejected(self, name: str) -> set[str]:
        """The reasons and details for which an organisation was rejected."""
        names = self.state.existing(self.name).genesis.names
        return {f"{e['reason']}: {e['detail']}" for e in self.events("rejected") if names[e["organisation"]] == name}


@contextmanager
def stopped(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Processes that stand still, as on a machine that is suspended or cut off from the network."""
    halted = [each for process in processes for each in (process, *process.children(recursive=True))]
    for process in halted:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in halted:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own in a folder that is there, which keeps what it holds while the block runs."""
    owner, kept = folder.stat(), folder.with_name(f"{folder.name}.kept")
    folder.rename(kept)
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", folder], check=True)
        os.chown(folder, owner.st_uid, owner.st_gid)
        yield
        subprocess.run(["cp", "-a", f"{folder}/.", kept], check=True)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()
        kept.rename(folder)


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    path = folder / "filler"
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    return path
