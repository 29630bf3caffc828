"""Residual risks: rows of the threat model as it stands, and those alone that apply."""

from dataclasses import replace
from pathlib import Path

import pytest

from console.papers.risks import RISKS, Circumstances, Risk, residual
from core.genesis import Privacy
from tests.behaviours.runs import build

PAGE = Path(__file__).parents[3] / "docs" / "concepts" / "threat-model.md"
ROWS = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("risk", RISKS, ids=lambda risk: risk.attack[:40])
def test_a_risk_is_a_row_that_the_threat_model_calls_not_defended(risk: Risk) -> None:
    (row,) = (row for row in ROWS if row[0].removeprefix("| ") == risk.attack)
    assert "not defended" in row[1].lower()


def test_what_a_run_defends_against_is_no_risk_of_it(tmp_path: Path) -> None:
    genesis = build(tmp_path / "run", rounds=1).genesis
    simulated = Circumstances(genesis, derived=True, own_chain=True, erased=False)
    told = {risk.attack for risk in residual(simulated)}
    assert "the owner of a development chain rebuilds it" in told
    assert "erases an organisation that did not ask" in told
    inferred = "infers from updates, aggregates, answers or verdicts whether a record was trained on, or what it says"
    assert inferred in told
    private = replace(genesis, privacy=Privacy(8.0, 1e-5, 1.0))
    deployed = Circumstances(private, derived=False, own_chain=False, erased=True)
    told = {risk.attack for risk in residual(deployed)}
    assert inferred not in told
    assert "the owner of a development chain rebuilds it" not in told
    assert "as an organisation, keeps copies of destroyed states" in told
    assert "a node that lies consistently" in told
