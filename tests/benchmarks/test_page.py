"""Result files become tables, and figures are held against their targets."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, targets
from benchmarks.report import RESULTS
from benchmarks.targets.target import Row


def stored(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else None


def test_a_page_lays_lists_out_as_tables(tmp_path: Path) -> None:
    report = {
        "command": "run",
        "seed": 0,
        "machines": [
            {
                "hardware": {
                    "processor": processor, "instruction_set": "i", "cores": 1, "memory_gib": 1, "accelerator": None,
                    "load_average": 0,
                },
                "versions": {"torch": "2"},
            }
            for processor in "pq"
        ],
        "figures": {
            "all": {"percent": 99.0, "low": 97.0, "high": 99.5},
            "rows": [{"name": "one", "hits": 3}, {"name": "two", "misses": 4}],
        },
    }  # fmt: skip
    (tmp_path / "some.json").write_text(json.dumps(report), encoding="utf-8")
    text = page.rendered("Text.\n<!-- some -->\n<!-- end -->\nMore.", "speed", tmp_path)
    assert text.startswith("Text.\n<!-- some -->\n<details")
    assert text.endswith("</details>\n<!-- end -->\nMore.")
    assert "p (i), 1 cores, 1 GiB, no accelerator; load 0; torch 2 and q (i), " in text
    assert "| all | 99.0 (97.0 to 99.5) |" in text
    assert "Rows:\n\n| name | hits | misses |\n|---|---|---|\n| one | 3 | not measured |" in text
    assert page.rendered(text, "speed", tmp_path) == text
    assert page.blocks(text) == ["some"]


def test_pages_are_written_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.md").write_text(f"<!-- {name} -->\nold\n<!-- end -->", encoding="utf-8")
    (tmp_path / "b.json").write_text('{"figures": ', encoding="utf-8")
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    monkeypatch.setattr(page, "rendered", partial(page.rendered, results=tmp_path))
    with pytest.raises(SystemExit, match=r"b\.json: expected a benchmark's result"):
        page.main()
    assert "old" in (tmp_path / "a.md").read_text(encoding="utf-8")


def test_a_block_without_a_file_says_that_nothing_was_measured(tmp_path: Path) -> None:
    assert page.rendered("<!-- none -->\nold\n<!-- end -->", "speed", tmp_path) == (
        "<!-- none -->\nnot measured\n<!-- end -->"
    )


@pytest.mark.parametrize("topic", page.TOPICS)
def test_a_topic_shows_its_own_targets_and_an_overview_those_of_all(topic: str) -> None:
    block = "<!-- targets -->\n<!-- end -->"
    own = page.rendered(block, topic)
    overviews = {speaks: page.rendered(block, name) for name, speaks in zip(page.OVERVIEWS, (True, False), strict=True)}
    rows = [row for row in targets.rows(stored) if row.topic == topic]
    assert rows
    assert own.count("\n|") == 2 + len(rows)
    for row in rows:
        assert f"| {row.claim} |" in own
        line = f"| [{topic.replace('-', ' ')}]({topic}.md) | {row.claim} |"
        assert (line in overviews[row.speaks], line in overviews[not row.speaks]) == (True, False)


def test_a_row_shows_the_worst_case_and_in_how_many_its_target_is_met() -> None:
    below = Row("speed", "Time", 10.0, {"one": 3.0, "two": 12.5}, " s")
    assert (below.bound, below.measured, below.met) == ("≤ 10 s", "12.5 s (two; worst of 2)", "1 of 2")
    above = Row("speed", "Rate", 2.0, {"all": 1999.6}, "×", at_least=True)
    assert (above.bound, above.measured, above.met) == ("≥ 2×", "2,000×", "yes")
    missed = Row("speed", "Rate", 2.0, {"all": 1.0}, at_least=True)
    assert (missed.measured, missed.met) == ("1", "no")
    assert Row("speed", "Rate", 2.0).met == "not measured"


def test_every_target_reads_its_figures_from_the_stored_results() -> None:
    rows = list(targets.rows(stored))
    assert len(rows) >= len(targets.TARGETS)
    assert {row.topic for row in rows} == set(page.TOPICS)
    by_claim = {row.claim: row for row in rows}
    assert by_claim["Gas of a round's transaction, 1024 organisations"].met == "yes"
    retained = by_claim["Repair, retain loss: standard deviations from retraining"]
    assert retained.met == "3 of 7"
    assert "embedded base" in retained.measured


def test_a_result_of_half_a_measurement_is_named() -> None:
    def halved(name: str) -> dict[str, Any] | None:
        figures = stored(name)
        return {**figures, "methods": []} if figures and name == "lds" else figures

    with pytest.raises(SystemExit, match=r"lds\.json: expected the figures of '.*', got .*: measure it to its end"):
        list(targets.rows(halved))


def test_what_was_not_measured_says_so() -> None:
    rows = list(targets.rows(lambda name: None))
    assert {row.met for row in rows} == {"not measured"}
    assert len(rows) == sum(not callable(target.limit) for target in targets.TARGETS)
