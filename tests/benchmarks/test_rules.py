"""The comparison of aggregation rules on a base that speaks."""

import json
from pathlib import Path

from benchmarks.rules import CASES, DEFAULT, measured, row
from core.aggregation import RULES
from core.config import RunConfig
from core.wire import DOWN


def test_every_rule_is_tried_with_the_mean_and_with_the_default_rate() -> None:
    rate = RunConfig().server_rate
    for rule in RULES:
        assert f"{rule}, η 1" in CASES
        assert f"{rule}, η {rate:g}" in CASES


def test_the_default_rule_is_tried_in_every_wire_form_that_saves_much() -> None:
    assert {"int8", "nf4", "sparse"} < DOWN.keys()
    assert all(f"wire={wire}" in CASES[f"{DEFAULT}, {wire}"] for wire in ("int8", "nf4", "sparse"))


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    run = {"base_loss": {"a": 4.0, "b": 2.0}, "final_loss": {"a": 1.0, "b": 0.5}}
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    (tmp_path / "said.json").write_text("62.5", encoding="utf-8")
    found = measured(tmp_path, "no base", (), 7, ())
    assert found == {"base loss": 3.0, "final loss": 0.75, "change percent": -75.0, "facts said percent": 62.5}
    assert row("mean", [found, found])["facts said percent"] == "62.5 ± 0"
