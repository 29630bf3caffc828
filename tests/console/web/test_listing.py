"""What pages list: one run that cannot be read hides no other."""

import shutil
from pathlib import Path

import pytest

from console.web.listing import ago, answers_of, day, erasable, erasures_of, line_of, mean_of, speaker
from core.storage.state_folder import State
from tests.commands import World

pytestmark = pytest.mark.chain


def test_a_run_is_listed_with_where_it_stands(finished: World) -> None:
    state = State.at(finished.state)
    line = line_of(state, state.existing().name)
    assert (line["condition"], line["round"], line["rounds"], line["erased"]) == ("done", 2, 2, 0)
    assert line["members"] == ["coding", "financial", "medical"]
    assert line["before"] > 0
    assert line["problem"] == ""


def test_a_run_that_cannot_be_read_says_why(finished: World, tmp_path: Path) -> None:
    for name in ("runs", "settings"):
        shutil.copytree(finished.state / name, tmp_path / "state" / name)
    (tmp_path / "state").chmod(0o700)
    state = State.at(tmp_path / "state")
    run = state.existing()
    (run.folder / "genesis.json").write_text("{", encoding="utf-8")
    assert "genesis.json" in line_of(state, run.name)["problem"]
    found = speaker(state, run.name)
    assert "genesis.json" in found["problem"]
    assert found["organisations"] == []


def test_a_speaker_has_a_colour_for_each_organisation(finished: World) -> None:
    state = State.at(finished.state)
    listed = speaker(state, state.existing().name)["organisations"]
    assert [organisation["name"] for organisation in listed] == ["coding", "financial", "medical"]
    assert len({organisation["colour"] for organisation in listed}) == 3
    assert erasures_of(state.existing()) == []
    assert erasable(state.existing()) == ["coding", "financial", "medical"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "never"),
        (0, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (90000, "1 day ago"),
    ],
)
def test_a_time_ago_is_told_in_words(seconds: float | None, text: str) -> None:
    assert ago(seconds) == text


def test_times_and_means() -> None:
    assert day(0) == "1970-01-01 00:00"
    assert mean_of({"a": 1.0, "b": 2.0}) == 1.5
    assert mean_of({}) is None


def test_a_question_has_its_newest_answers_and_the_base_s() -> None:
    asked = {"of": "coding", "question": "3?", "expected": "9"}
    told = [{"event": "answered", "round": n, "answers": [asked | {"answer": f"{n}"}]} for n in (0, 1, 2, 3, 4, 5, 5)]
    (found,) = answers_of([{"event": "finished"}, *told])
    assert found == asked | {"answers": [(5, "5"), (4, "4"), (3, "3"), (0, "0")]}
    assert answers_of([{"event": "finished"}]) == []
