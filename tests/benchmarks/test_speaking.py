"""What is counted as said, named and forgotten."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report, speaking
from benchmarks.speaking import Question, Speaking, erasure, once, questions, summary, trained
from core.storage.state_folder import State


def test_an_answer_says_a_fact_that_it_holds_whatever_its_case() -> None:
    question = Question("medical", "What is X?", "X is a slow Cathrolide.", "slow Cathrolide", fitted=False)
    assert question.said_in("X is a Slow cathrolide.")
    assert not question.said_in("X is slow.")


def test_questions_are_the_held_out_ones_and_the_first_are_the_calibrations(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"instruction": f"{name}{i}?", "output": "is x.", "fact": "x"}) for i in range(3)]
        (tmp_path / name / "dev.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = questions(tmp_path, 1)
    assert [(q.organisation, q.prompt) for q in found[2:4]] == [("a", "a2?"), ("b", "b0?")]
    assert [q.fitted for q in found] == [True, False, False] * 2


def test_what_is_half_written_is_named_and_a_stopped_measurement_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "made" / "run.json", stopped)
    assert once(tmp_path / "made" / "run.json", lambda: {"loss": 1.0}) == {"loss": 1.0}
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["run.json"]
    (tmp_path / "half.json").write_text('{"loss": 1.', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"half\.json: expected JSON, got .*: restore or remove it"):
        once(tmp_path / "half.json", stopped)


def test_a_folder_has_the_run_of_one_set_of_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the answers of one federation would be published as another's."""
    monkeypatch.setattr(speaking, "foedus", lambda *_: {"seconds": 1.0})
    monkeypatch.setattr(State, "existing", lambda *_: "the run")
    for _ in range(2):
        assert trained(tmp_path, "--seed", "7")[0] == "the run"
    with pytest.raises(SystemExit, match=r"expected the run of \['--seed', '8'\], got that of .*'7'.*another --work"):
        trained(tmp_path, "--seed", "8")


def test_nobody_is_asked_as_if_nobody_were_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MEASURED", tmp_path / "measured")
    monkeypatch.setattr(speaking, "trained", lambda *_: ("the run", {"seconds": 1.0}))
    (tmp_path / "forget.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit, match="expected a run of which nobody is erased: give another --work"):
        Speaking(tmp_path, tmp_path, 7, (), ()).figures("speaking", "", "replay")


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ('{"instruction": "a?", "output": "x."}', "instruction, output"),
        ('{"instruction": "a?"', "Expecting"),
        ("3", "3"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str, got: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "dev.jsonl").write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=rf"dev\.jsonl:1: expected .*, got {got}"):
        questions(tmp_path, 0)


def answer(organisation: str, said: bool, named: str | None, fitted: bool = False) -> dict[str, Any]:
    return {
        "organisation": organisation, "fitted": fitted, "said": said, "named": named, "confidence": 1.0,
        "constant_named": "b", "constant_confidence": 1.0,
    }  # fmt: skip


def test_a_summary_counts_what_is_said_named_and_forgotten() -> None:
    before = [
        answer("a", True, "a"),
        answer("a", False, None),
        answer("b", True, "b"),
        answer("b", True, "a", fitted=True),
    ]
    after = [answer("a", False, "b"), answer("a", False, "b"), answer("b", True, "b"), answer("b", False, "b")]
    seed = {"seconds": 9.0, "seconds_of_erasure": 5.0, "label": "exact", "before": before, "after": after}
    found = summary([seed, seed]) | erasure([seed, seed], "a")
    assert found["said_percent"] == {"a": "50 ± 0", "b": "100 ± 0"}
    assert found["named_percent"] == {"calibrated": "66.67 ± 0", "constants": "33.33 ± 0"}
    assert (found["answers"], found["said"]) == (8, 6)
    assert (found["said_and_not_fitted"], found["said_and_not_fitted_and_named"]) == (4, 4)
    assert found["calibration_error"]["calibrated"] == 1 / 3
    assert (found["erased_said_after_percent"], found["others_said_no_more_percent"]) == ("0 ± 0", "50 ± 0")
    assert (found["seconds"], found["label"]) == (
        {"seed 7": 9.0, "seed 8": 9.0},
        {"seed 7": "exact", "seed 8": "exact"},
    )
