"""One federation to its end: one CLI, one writer, and the ServerApp's own error."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from console.backends.federation import Backend, federate
from core.config import RunConfig
from core.errors import DataError, RunError, RunLockedError, UsageError
from core.storage.events import EventLog
from core.storage.lock import locked
from core.storage.state_folder import State


@pytest.fixture
def settings(tmp_path: Path) -> RunConfig:
    return RunConfig(state=str(tmp_path), run="one")


def backend(monkeypatch: pytest.MonkeyPatch, run: Callable[..., None]) -> None:
    monkeypatch.setattr("console.backends.inline.run_simulation", run)


def test_a_backend_is_given_the_settings_and_follows_the_event_log(
    settings: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = []

    def run(config: RunConfig, nodes: int, watch: Callable[[], bool]) -> None:
        assert (config, nodes) == (settings, 2)
        ended.append(watch())
        EventLog(State.of(config).events("one")).write("finished", status="completed")
        ended.append(watch())

    backend(monkeypatch, run)
    federate(settings, Backend.inline)
    assert ended == [False, True]
    assert "one" in capsys.readouterr().err


def test_the_settings_are_remembered_before_anything_runs(settings: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    backend(monkeypatch, lambda config, *_: seen.append(State.of(config).settings("one").exists()))
    federate(settings, Backend.inline)
    assert seen == [True]


@pytest.mark.parametrize("suffix", [".lock", ".cli"])
def test_a_second_cli_or_another_writer_is_refused(
    settings: RunConfig, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    backend(monkeypatch, lambda *_: pytest.fail("started"))
    with locked(State.of(settings).lock("one").with_suffix(suffix)), pytest.raises(RunLockedError, match="one"):
        federate(settings, Backend.inline)
    assert not State.of(settings).settings("one").exists()


@pytest.mark.parametrize(("exit_code", "kind"), [(2, UsageError), (1, RunError)])
def test_the_server_app_s_reason_is_raised_and_not_flowers_echo(
    settings: RunConfig, monkeypatch: pytest.MonkeyPatch, exit_code: int, kind: type[Exception]
) -> None:
    def run(config: RunConfig, *_: object) -> None:
        EventLog(State.of(config).events("one")).write("failed", error="no data of coding", exit_code=exit_code)
        raise RunError("Flower says the run is finished:failed")

    backend(monkeypatch, run)
    with pytest.raises(kind, match="no data of coding"):
        federate(settings, Backend.inline)


def test_a_backend_s_own_error_is_raised_where_the_server_app_gave_none(
    settings: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        raise RunError("the SuperLink ended with status 1")

    backend(monkeypatch, run)
    with pytest.raises(RunError, match="status 1"):
        federate(settings, Backend.inline)
    with locked(State.of(settings).lock("one")):  # given back
        pass


def test_every_backend_is_a_module_that_runs_simulations() -> None:
    folder = Path(__file__).parents[3] / "console" / "backends"
    for name in Backend:
        assert "\ndef run_simulation(" in (folder / f"{name}.py").read_text(encoding="utf-8")


def test_data_that_cannot_be_read_end_the_run_before_anything_is_started(
    settings: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend(monkeypatch, lambda *_: pytest.fail("started"))
    (tmp_path / "clinic.jsonl").write_text('{"question": "Which sign?", "answer": "\\ud83d"}\n')
    with pytest.raises(DataError, match=r"clinic\.jsonl:1: field 'answer': expected Unicode text"):
        federate(replace(settings, data=str(tmp_path)), Backend.inline)
    assert not State.of(settings).settings("one").exists()


def test_what_is_skipped_is_said(
    settings: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend(monkeypatch, lambda *_: None)
    for name in ("clinic.jsonl", "notes.txt", "._clinic.jsonl"):
        (tmp_path / name).write_text("".join(f'{{"question": "{i}?", "answer": "{i}"}}\n' for i in range(3)))
    federate(replace(settings, data=str(tmp_path)), Backend.inline)
    said = capsys.readouterr().err
    assert "notes.txt: skipped" in said
    assert "._clinic.jsonl: skipped, it is hidden" in said
