"""A run in a notebook: frames that say what the records say, pictures, traced answers, and the cells of the docs."""

import json
from pathlib import Path

import pytest

from console import notebook
from core.errors import UsageError
from tests.behaviours.runs import build
from tests.commands import ORGANISATIONS, World
from tests.notebooks import NOTEBOOK, executed

pytestmark = pytest.mark.chain


def test_frames_say_what_status_says(finished: World) -> None:
    run, told = notebook.open_run(state=finished.state), finished.command("status").json
    assert run.name == told["run"]
    assert list(run.losses.index) == [0, 1, 2]
    assert run.losses.loc[0].to_dict() == pytest.approx(told["base_loss"])
    assert run.losses.loc[2].to_dict() == pytest.approx(told["final_loss"])
    assert sorted(run.records["organisation"]) == sorted(ORGANISATIONS * 2)
    admitted = [admitted for signed in run.run.records() for admitted in signed.value.admitted]
    assert run.records["weight"].tolist() == [one.weight for one in admitted]
    assert run.records["update"].tolist() == [one.signed.value.update for one in admitted]
    assert run.records["aggregate"].tolist()[-1] == told["rounds"][-1]["aggregate"]


def test_an_answer_is_traced_and_shows_its_page(finished: World) -> None:
    answer = notebook.open_run(state=finished.state).attribute("coding 1?", "cod 1")
    assert list(answer.scores.columns[1:-2]) == [answer.names[address] for address in answer.trace.organisations]
    assert "".join(answer.scores["token"]) == answer.trace.text
    assert answer.verdict in (*ORGANISATIONS, None)
    page = answer._repr_html_()
    assert page.startswith("<iframe srcdoc=")
    assert "<script" not in page, "what is in the frame stays in the frame"


def test_pictures_name_rounds_and_organisations(finished: World) -> None:
    run = notebook.open_run(state=finished.state)
    losses, lineage = run.plot_losses()._repr_html_(), run.plot_lineage()._repr_html_()
    assert all(name in losses for name in ORGANISATIONS)
    assert "Round 2, generation 0" in lineage
    assert "<svg" in run.plot_credits()._repr_html_()


def test_a_run_that_is_not_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        notebook.open_run(state=tmp_path)
    with pytest.raises(UsageError):
        notebook.open_run("another", state=build(tmp_path / "runs" / "run", rounds=1).run.folder.parent.parent)


def test_the_documentations_cells_run_and_show_what_it_shows(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOEDUS_HOME", str(finished.state))
    published = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    kinds = [[sorted(out["data"]) for out in cell.get("outputs", ())] for cell in published["cells"]]
    now = executed(published)
    assert [[sorted(out["data"]) for out in cell.get("outputs", ())] for cell in now["cells"]] == kinds
    assert sum(map(len, kinds)) == 7, "it was executed: python -m tests.notebooks"
