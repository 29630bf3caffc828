"""Artifacts that other processes read ahead are judged as if the audit had read each where it asks."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from chain.audit import reading
from chain.audit.reading import Opened, reading_ahead
from chain.audit.report import AuditReport
from chain.audit.run import verify
from core.errors import DestroyedError, IntegrityError
from core.storage.artifacts import SEALED
from tests.behaviours.runs import Federation, build


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=3)


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes read ahead for runs of any size, few bytes at a time."""
    monkeypatch.setattr(reading, "WORTH", 1)
    monkeypatch.setattr(reading, "_AHEAD_BYTES", 2000)


def updates(federation: Federation) -> list[Path]:
    """The files of all updates, in the order of an audit."""
    artifacts = federation.run.artifacts
    names = [a.signed.value.update for s in federation.run.records() for a in s.value.admitted]
    return [federation.run.folder / "artifacts" / (artifacts.place(name) + SEALED) for name in names]


def both(federation: Federation) -> AuditReport:
    """The report of an audit that reads ahead, which is that of one that does not."""
    found = verify(federation.run, federation.ledger, processes=2)
    assert verify(federation.run, federation.ledger) == found
    return found


@pytest.mark.usefixtures("ahead")
def test_an_audit_that_reads_ahead_finds_what_one_that_does_not_finds(federation: Federation) -> None:
    first, *_, last = updates(federation)
    last.unlink()
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    found = both(federation)
    assert [failure.what for failure in found.failures] == ["update", "update"]
    assert found.recomputed == 1


@pytest.mark.usefixtures("ahead")
def test_what_was_passed_over_holds_up_nothing(federation: Federation) -> None:
    record = next((federation.run.folder / "records").glob("*R00001*"))
    record.write_bytes(b"{}")
    assert both(federation).checked["updates"] == 4


@pytest.mark.usefixtures("ahead")
def test_processes_that_the_system_ends_are_done_without(federation: Federation) -> None:
    artifacts, names = federation.run.artifacts, [s.value.aggregate for s in federation.run.records()]
    with reading_ahead(artifacts, [(name, None) for name in names], 1) as read:
        assert read(names[0], None).data == artifacts.open_packed(names[0]).data
        killed = 0
        for child in psutil.Process().children():
            with suppress(psutil.Error):  # one that has ended and nobody has waited for has no command line
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    killed += 1
        assert killed
        assert [read(name, None).error for name in names[1:]] == [None, None]


def test_an_error_says_whether_the_key_or_the_bytes_are_wrong(federation: Federation) -> None:
    artifacts, (name, *_) = federation.run.artifacts, [s.value.aggregate for s in federation.run.records()]
    place = artifacts.place(name)
    artifacts.blobs.write(place + SEALED, [b"other"])
    found = Opened.of(artifacts, name, None)
    assert found.unlocked
    assert isinstance(found.error, IntegrityError)
    artifacts.destroy(name)
    found = Opened.of(artifacts, name, None)
    assert not found.unlocked
    assert isinstance(found.error, DestroyedError)
    (update, *_) = (a.signed.value.update for s in federation.run.records() for a in s.value.admitted)
    assert "expected the key file of one of its readers" in str(
        Opened.of(replace(artifacts, key=None), update, None).error
    )


_AUDIT = """
import sys, time
from pathlib import Path
from chain.audit import reading
from core.storage.run_folder import RunFolder
from tests.behaviours.runs import COORDINATOR
if __name__ == "__main__":
    reading.WORTH = 1
    run = RunFolder(Path(sys.argv[1]), key=COORDINATOR)
    names = [signed.value.aggregate for signed in run.records()]
    with reading.reading_ahead(run.artifacts, [(name, None) for name in names], 1) as read:
        read(names[0], None)
        print("read", flush=True)
        time.sleep(60)
"""


def test_the_processes_end_with_an_audit_that_is_killed(federation: Federation, tmp_path: Path) -> None:
    script = tmp_path / "audit.py"
    script.write_text(_AUDIT, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(federation.run.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as audit:
        assert audit.stdout
        assert audit.stdout.readline() == "read\n"
        children = psutil.Process(audit.pid).children(recursive=True)
        assert children
        os.kill(audit.pid, signal.SIGKILL)
    _, left = psutil.wait_procs(children, timeout=20)
    assert not left
