"""A run on a deployment is taken up again after a loss, but not for ever; tests/integration/test_resuming.py kills."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.progress import Progress

from console.backends import deployment
from console.backends.children import free_port
from console.backends.deployment import DeployedRun, answers, last_error
from console.backends.proxy import own_certificate
from console.views.progress import Watcher
from core.config import RunConfig
from core.deployment import CoordinatorSettings
from core.errors import RunError
from core.storage.lock import locked
from core.storage.state_folder import State


@dataclass(frozen=True)
class Scripted(DeployedRun):
    """A run whose losses are written down: what was lost, and how many rounds were recorded then."""

    losses: Iterator[tuple[str, int]] = field(default_factory=lambda: iter(()))
    submitted: list[int] = field(default_factory=list)
    known: list[int] = field(default_factory=lambda: [0])

    def submit(self) -> str:
        self.submitted.append(self.known[-1])
        return "1"

    def follow(self, run_id: str) -> str:
        del run_id
        lost, known = next(self.losses, ("", 0))
        self.known.append(known)
        if lost.startswith("failed"):
            self.watch.failure = RunError(lost)
            return ""
        return lost

    def records(self) -> int:
        return self.known[-1]

    def wait_for_superlink(self) -> None:
        pass


def scripted(folder: Path, *losses: tuple[str, int]) -> Scripted:
    (folder / "coordinator.toml").write_text('certificate = "c"\nprivate-key = "k"\n')
    config = RunConfig(state=str(folder / "state"), run="first")
    watcher = Watcher(State.of(config), "first", Progress(disable=True))
    return Scripted(config, CoordinatorSettings.read(folder), watcher, iter(losses))


def test_every_loss_is_followed_by_another_start_while_rounds_are_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = scripted(tmp_path, *(("the ServerApp was lost", number) for number in range(1, 9)))
    run.run()
    assert len(run.submitted) == 9
    assert "the ServerApp was lost: going on behind round 8" in capsys.readouterr().err


def test_losses_without_a_round_between_end_the_run(tmp_path: Path) -> None:
    run = scripted(tmp_path, *[("the SuperLink was lost", 1)] * 9)
    with pytest.raises(RunError, match="the SuperLink was lost, 5 times without a round between"):
        run.run()
    assert len(run.submitted) == 5


def test_a_failure_is_the_end_unless_it_follows_a_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = scripted(tmp_path, ("failed: no quorum", 0))
    first.run()
    assert (len(first.submitted), str(first.watch.failure)) == (1, "failed: no quorum")
    later = scripted(tmp_path, ("the ServerApp was lost", 1), ("failed: 2 of 3 answered", 1), ("", 3))
    later.run()
    assert (len(later.submitted), later.watch.failure) == (3, None)
    assert "after a loss, failed: 2 of 3 answered: going on behind round 1" in capsys.readouterr().err
    rounds = scripted(tmp_path, ("the ServerApp was lost", 1), ("failed: disk full", 2))
    rounds.run()
    assert str(rounds.watch.failure) == "failed: disk full"


def test_this_process_and_one_that_has_ended_write_no_run(tmp_path: Path) -> None:
    run = scripted(tmp_path)
    with locked(run.state.lock("first")):
        assert run.state.lock("first").read_text() == str(os.getpid())
        assert run.writer() is None
    run.state.lock("first").write_text(str(2**22 + 1))
    assert run.writer() is None
    run.end_writer()


def test_a_writer_that_ends_before_it_is_ended_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment, "_LEAVE_SECONDS", 0.0)
    monkeypatch.setattr(Scripted, "writer", lambda _: 2**22 + 1)
    scripted(tmp_path).end_writer()


def test_the_reason_of_a_loss_is_the_last_error_that_was_printed() -> None:
    log = (
        'INFO : round 1\nTraceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: earlier\n'
        'Traceback (most recent call last):\n  File "b.py", line 2, in g\n    raise RunError(text)\n'
        "core.errors.RunError: cannot write /state/x: expected 9 bytes free, got No space left on device\nERROR : 201\n"
    )
    assert last_error(log) == "cannot write /state/x: expected 9 bytes free, got No space left on device"
    assert last_error("INFO : killed\n") == ""


def test_a_port_that_nobody_serves_does_not_answer(tmp_path: Path) -> None:
    certificate, _ = own_certificate(tmp_path)
    assert not answers(free_port(), certificate)
    assert not scripted(tmp_path).healthy()
