"""A background process, one a folder, that any number of others start on demand.

Its folder holds `lock`, held as long as the process lives, `service.json` with its URL and pid, written when it is
about to answer, and `log`. Starting it twice is harmless: the holder of the lock detaches and goes on, any other exits
at once. So no starter owns it: a ServerApp, which is a short-lived child of Flower, may come and go.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import chain
from core.canonical import parse_json
from core.errors import FormatError, LedgerUnreachableError
from core.storage.blobs import write
from core.storage.lock import is_held, take

LOCK: Final = "lock"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
_ON_ITS_WAY_SECONDS: Final = 5.0
_INFO: Final = "service.json"
_LOG: Final = "log"
_ANSWER_BYTES: Final = 4096
_ALREADY_RUNNING: Final = 75
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Service:
    """A service as others see it: its folder, the module that runs it, and how to tell that it answers.

    `probe` is the path of the URL that answers eth_chainId with `chain_id`.
    """

    folder: Path
    module: str
    chain_id: int
    probe: str = ""
    arguments: tuple[str, ...] = ()

    def announced(self) -> str | None:
        """Where it said that it answers, or None when it does not run."""
        info = None if is_free(self.folder) else _info(self.folder)
        return str(info["url"]) if info else None

    def url(self) -> str | None:
        """Where it answers, or None when it does not."""
        url = self.announced()
        if url is None:
            return None
        question = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
        request = urllib.request.Request(  # noqa: S310 - a loopback URL that the service wrote
            url + self.probe, json.dumps(question).encode(), {"Content-Type": "application/json"}
        )
        # A proxy of the environment would not know the loopback of this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=5) as response:
                return url if parse_json(response.read(_ANSWER_BYTES)).get("result") == hex(self.chain_id) else None
        except (urllib.error.URLError, OSError, AttributeError, FormatError):
            return None

    def ensure(self) -> str:
        """The URL of the running service; starts it when nothing runs.

        Raises LedgerUnreachableError with the last line of its log when it does not come up.
        """
        deadline = time.monotonic() + START_SECONDS
        started = False
        while time.monotonic() < deadline:
            if url := self.url():
                return url
            if is_free(self.folder):
                if started:
                    break
                started = self._start()
            time.sleep(0.02)
        log = self.folder / _LOG
        lines = log.read_text("utf-8", "replace").strip().splitlines() if log.exists() else []
        raise LedgerUnreachableError(
            f"the chain in {self.folder} did not start: {lines[-1] if lines else 'its log is empty'}"
        )

    def stop(self) -> bool:
        """End it and wait until it has ended; False when it did not run."""
        return _stop(self.folder)

    def _start(self) -> bool:
        """Run the starter, which returns at once; False when another process was faster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # The package that is imported here, and no other: a FAB or a checkout may come first on sys.path.
        root = str(Path(chain.__file__).resolve().parent.parent)
        # The starter's other variables are about itself, and the service outlives it.
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        with (self.folder / _LOG).open("ab") as log:
            result = subprocess.run(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", self.module, str(self.folder), *self.arguments],
                cwd=self.folder,
                env={**inherited, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        return result.returncode != _ALREADY_RUNNING


@contextmanager
def ended_when_interrupted(state: Path) -> Iterator[None]:
    """End the services of a state folder that were started while the block ran, when a signal or Ctrl-C ends it.

    Otherwise they go on, until they are idle.
    """
    before = set(_running(state))
    try:
        yield
    except (KeyboardInterrupt, SystemExit, OSError):  # the last: a terminal that has gone
        # One may be on its way: its starter was ended in the block, and it has not said yet that it answers.
        deadline = time.monotonic() + (0.0 if before else _ON_ITS_WAY_SECONDS)
        while not (started := set(_running(state)) - before) and time.monotonic() < deadline:
            time.sleep(0.1)
        for folder in started:
            while not _stop(folder) and not is_free(folder):  # it has not said yet where it answers
                time.sleep(0.1)
        raise


def become(folder: Path) -> FileIO:
    """Turn this process into the folder's service, detached from its starter; returns the lock, to be kept open.

    Exits when the folder has a service already. Call it before threads are started or much is imported.
    """
    try:
        lock = take(folder / LOCK)
    except BlockingIOError:
        sys.exit(_ALREADY_RUNNING)
    (folder / _INFO).unlink(missing_ok=True)
    if os.fork():
        # The starter waits for this process only; the lock stays with the one that goes on.
        os._exit(0)
    os.setsid()
    return lock


def announce(folder: Path, url: str) -> None:
    """Say where the service answers."""
    # Whoever can read the URL can use the service.
    write(folder / _INFO, json.dumps({"url": url, "pid": os.getpid()}).encode())


class Address(NamedTuple):
    """Where a service answers on the loopback, and the token in its URL."""

    port: int
    token: str


def last_address(folder: Path) -> Address:
    """The port of the folder's last service and its token; 0 and a new token when there was none.

    Kept, so that a URL that was handed out goes on leading to a service that was started again.
    """
    info = _info(folder)
    url = urlsplit(info["url"]) if info else urlsplit("")
    return Address(url.port or 0, url.path.strip("/") or secrets.token_urlsafe(24))


def is_free(folder: Path) -> bool:
    """Whether no service runs in the folder."""
    return not is_held(folder / LOCK)


def _running(state: Path) -> Iterator[Path]:
    """The folders of a state folder's services that run, or are about to."""
    return (lock.parent for lock in (state / "chain").glob(f"*/{LOCK}") if not is_free(lock.parent))


def _stop(folder: Path) -> bool:
    """End a folder's service and wait until it has ended; False when it did not run."""
    info = None if is_free(folder) else _info(folder)
    if info is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(info["pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while not is_free(folder):
        if time.monotonic() > deadline:
            raise LedgerUnreachableError(f"process {info['pid']} of {folder} does not end")
        time.sleep(0.02)
    return True


def _info(folder: Path) -> dict[str, Any] | None:
    try:
        info: dict[str, Any] = parse_json((folder / _INFO).read_bytes())
    except FileNotFoundError:
        return None
    return info
