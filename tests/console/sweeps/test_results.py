"""What a sweep found: rows, the best, JSON, CSV."""

import csv
import io
import json
from pathlib import Path

import pytest

from console.sweeps.plan import Sweep
from console.sweeps.results import Outcome, as_csv, best_of, rows_of, tables, to_dict, write
from console.sweeps.trials import folder
from core.storage.events import EventLog

PLAN = Sweep.parse({"seeds": [7, 8], "grid": {"rank": [2, 4, 8]}})
TRIALS = PLAN.trials()


def outcomes(**failed: str) -> list[Outcome]:
    """Rank 2 is good, rank 4 is better in the mean, rank 8 is best but one of its seeds failed."""
    losses = [3.0, 3.2, 2.0, 2.4, 1.0, None]
    return [
        Outcome(t, "failed", {}, {}, failed.get("detail", "no room"))
        if loss is None
        else Outcome(t, "done", {"final-loss": loss, "seconds": 5.0}, {1: loss + 1, 2: loss})
        for t, loss in zip(TRIALS, losses, strict=True)
    ]


def test_the_best_has_the_lowest_mean_of_those_with_every_seed() -> None:
    rows = rows_of(PLAN, outcomes())
    assert [row.varied for row in rows] == [{"rank": 2}, {"rank": 4}, {"rank": 8}]
    assert [str(row.found) for row in rows] == ["3.1 ± 1.3", "2.2 ± 2.5", "1"]
    best = best_of(rows)
    assert best is not None
    assert best.varied == {"rank": 4}
    found = to_dict(PLAN, rows)
    assert found["best"]["settings"] == {"rank": 4}
    assert found["best"]["low"] < found["best"]["mean"] == 2.2 < found["best"]["high"]
    assert [trial["status"] for trial in found["trials"]] == ["done"] * 5 + ["failed"]
    assert found["trials"][-1]["detail"] == "no room"
    json.dumps(found, allow_nan=False)


def test_of_one_seed_the_best_has_no_interval() -> None:
    plan = Sweep.parse({"grid": {"rank": [2]}})
    rows = rows_of(plan, [Outcome(plan.trials()[0], "done", {"final-loss": 3.0}, {})])
    best = to_dict(plan, rows)["best"]
    assert (best["mean"], best["low"], best["high"]) == (3.0, None, None)


def test_without_a_whole_row_there_is_no_best() -> None:
    rows = rows_of(PLAN, outcomes()[4:])
    assert best_of(rows) is None
    assert to_dict(PLAN, rows)["best"] is None
    shown = [part for part in tables(PLAN, rows, Path("page.html")) if isinstance(part, str)]
    assert shown == [
        "Failed   rank 8, seed 8: no room",
        "Best     none: of no settings every seed is done",
        "Page     page.html",
    ]


def test_a_row_says_how_its_trials_ended() -> None:
    stopped = Outcome(TRIALS[1], "stopped", {}, {})
    rows = rows_of(PLAN, [outcomes()[0], stopped, *outcomes()[2:]])
    assert [row.ended for row in rows] == ["1 done, 1 stopped", "2 done", "1 done, 1 failed"]


def test_csv_has_a_line_for_each_trial(tmp_path: Path) -> None:
    rows = rows_of(PLAN, outcomes(detail='said "no", and\nmore'))
    lines = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [line["rank"] for line in lines] == ["2", "2", "4", "4", "8", "8"]
    assert [line["seed"] for line in lines] == ["7", "8"] * 3
    assert [line["final-loss"] for line in lines] == ["3.0", "3.2", "2.0", "2.4", "1.0", ""]
    assert lines[-1]["detail"] == 'said "no", and\nmore'
    paths = write(PLAN, rows, tmp_path)
    assert json.loads(Path(paths["json"]).read_text(encoding="utf-8")) == to_dict(PLAN, rows)


def test_an_outcome_is_read_from_its_folder(tmp_path: Path) -> None:
    trial = TRIALS[0]
    place = folder(tmp_path, trial.name)
    runs = place / "state" / "runs" / "one"
    runs.mkdir(parents=True)
    log = EventLog(place / "state" / "events" / "one.jsonl")
    log.path.parent.mkdir(parents=True)
    for number, loss in ((1, 4.0), (2, 3.0)):
        log.write("evaluated", round=number, validation={"a": loss, "b": loss + 2})
    log.write("evaluated", round=3, validation={})
    (place / "log").write_text("one\nfoedus: no room\n\n", encoding="utf-8")
    assert Outcome.of(tmp_path, trial, "failed") == Outcome(trial, "failed", {}, {1: 5.0, 2: 4.0}, "foedus: no room")
    (place / "result.json").write_text('{"seconds": 2, "final_loss": {"a": 1.0, "b": 3.0}}', encoding="utf-8")
    found = Outcome.of(tmp_path, trial, "done")
    assert found.figures == {"seconds": 2.0, "final-loss": 2.0, "worst-loss": 3.0, "validation-loss": 4.0}


def test_a_trial_that_said_nothing_says_so(tmp_path: Path) -> None:
    assert Outcome.of(tmp_path, TRIALS[0], "failed").detail == "it said nothing"


@pytest.mark.parametrize("status", ["stopped", "done"])
def test_only_a_failure_has_a_detail(tmp_path: Path, status: str) -> None:
    assert Outcome.of(tmp_path, TRIALS[0], status).detail == ""
