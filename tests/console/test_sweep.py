"""`foedus sweep`, with Ray in the place of which a function says how trials end."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from console.sweeps import trials as module
from console.sweeps.plan import Sweep, Trial
from console.sweeps.trials import folder
from tests.commands import foedus

FILE = 'backend = "inline"\nseeds = [7, 8]\n[grid]\nrank = [2, 4]\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of four, whose last trial fails."""

    def ended(
        _plan: Sweep, given: Sequence[Trial], out: Path, address: str, told: Callable[[int, str, str], None]
    ) -> dict[str, str]:
        statuses = {}
        for number, trial in enumerate(given, 1):
            place = folder(out, trial.name)
            place.mkdir(parents=True, exist_ok=True)
            loss = 3.0 - trial.settings["rank"] / 10
            if number < len(given):
                done = {"seconds": 2.0, "final_loss": {"a": loss, "b": loss}}
                (place / "result.json").write_text(json.dumps(done), encoding="utf-8")
            else:
                (place / "log").write_text(f"foedus: no room at {address}\n", encoding="utf-8")
            statuses[trial.name] = "done" if number < len(given) else "failed"
            told(number, trial.name, statuses[trial.name])
        return statuses

    monkeypatch.setattr(module, "run_trials", ended)
    path = tmp_path / "ranks.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_a_trial_that_fails_is_told_and_the_others_are_compared(file: Path, tmp_path: Path) -> None:
    done = foedus("sweep", file, "--state", tmp_path / "state", "--address", "ray://there:1", "--json")
    found = json.loads(done.out)
    assert done.code == 1
    assert [trial["status"] for trial in found["trials"]] == ["done", "done", "done", "failed"]
    assert found["trials"][-1]["detail"] == "foedus: no room at ray://there:1"
    assert found["best"]["settings"] == {"rank": 2}, "of rank 4 a seed is missing"
    place = tmp_path / "state" / "sweeps" / "ranks"
    assert f"sweep of 4 trials in {place}: 0 done, 4 to run" in done.err
    assert "trial 4 of 4: rank 4, seed 8: failed" in done.err
    for path in found["files"].values():
        assert Path(path).parent == place
        assert Path(path).stat().st_size


def test_people_get_a_table_and_the_best(file: Path, tmp_path: Path) -> None:
    done = foedus("sweep", file, "--out", tmp_path / "out")
    for part in ("rank 2", "Best     rank 2: final-loss 2.8 ± 0", "Failed   rank 4, seed 8", "Page     "):
        assert part in done.out


def test_a_sweep_that_is_there_is_gone_on_with_only_when_asked(file: Path, tmp_path: Path) -> None:
    foedus("sweep", file, "--out", tmp_path / "out")
    again = foedus("sweep", file, "--out", tmp_path / "out")
    assert (again.code, again.out) == (2, "")
    assert "--resume goes on with it" in again.err
    resumed = foedus("sweep", file, "--out", tmp_path / "out", "--resume", "--json")
    assert resumed.json["best"]["seeds"] == 2
    assert f"{tmp_path / 'out'}: 3 done, 1 to run" in resumed.err


def test_a_sweep_that_is_interrupted_says_how_it_goes_on(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_trials", interrupted)
    done = foedus("sweep", file, "--out", tmp_path / "out")
    assert (done.code, done.error) == (130, "interrupted")
    assert "the same command with --resume goes on with it" in done.err


def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path) -> None:
    for grid, error in (
        ("rank = 3", "[grid] rank: expected a list of values, at least one, got 3"),
        ("rank = [-1]", "rank: expected 1 to 4096, got -1"),
        ("ranks = [4]", "expected a setting, got 'ranks': did you mean rank?"),
    ):
        (tmp_path / "bad.toml").write_text(f"[grid]\n{grid}\n", encoding="utf-8")
        done = foedus("sweep", tmp_path / "bad.toml")
        assert (done.code, done.error) == (2, f"sweep {tmp_path / 'bad.toml'}: {error}")
