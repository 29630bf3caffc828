import io
from pathlib import Path

import pytest
from rich.console import Console

from console.views.progress import watching
from core.errors import FoedusError, RunError, UsageError
from core.storage.events import EventLog


def test_a_watcher_sees_only_what_happens_from_now_on(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "run.jsonl")
    log.write("failed", error="an earlier attempt", exit_code=1)
    with watching(Console(file=io.StringIO()), log.path) as watch:
        assert not watch()
        log.write("round-started", round=1, rounds=2, asked=["0x1", "0x2"])
        log.write("rejected", organisation="0x2", reason="not-finite", detail="NaN")
        log.write("evaluated", round=1)
        assert not watch()
        assert watch.progress.tasks[0].completed == 1
        log.write("finished")
        assert watch()
        assert watch.failure is None


@pytest.mark.parametrize(("code", "kind"), [(2, UsageError), (1, RunError)])
def test_a_failure_keeps_its_exit_code(tmp_path: Path, code: int, kind: type[FoedusError]) -> None:
    log = EventLog(tmp_path / "run.jsonl")
    with watching(Console(file=io.StringIO()), log.path) as watch:
        log.write("failed", error="what went wrong", exit_code=code)
        assert watch()
    assert type(watch.failure) is kind
    assert str(watch.failure) == "what went wrong"


def test_a_rejection_is_shown(tmp_path: Path) -> None:
    log, out = EventLog(tmp_path / "run.jsonl"), io.StringIO()
    with watching(Console(file=out, width=120), log.path) as watch:
        log.write("rejected", organisation="0x2", reason="not-finite", detail="NaN")
        watch()
    assert "rejected 0x2: not-finite: NaN" in out.getvalue()
