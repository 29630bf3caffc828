"""The audit of a run that goes on from another: where both are here, that other has served what it began with."""

from dataclasses import replace
from pathlib import Path

import pytest

from chain.audit.origin import check_origin
from chain.audit.report import Findings, What
from core.canonical import to_json
from core.genesis import Genesis
from core.origins import FormerRun
from core.storage.run_folder import RunFolder
from tests import federation as f
from tests.behaviours.runs import build


def descendant(folder: Path, **changes: object) -> tuple[RunFolder, Genesis]:
    """A run beside one of two rounds, whose served state it names."""
    former = build(folder / "before", rounds=2, organisations=3).run
    head = former.lineage(0)[-1].value
    given = FormerRun("before", former.genesis.digest, head.digest, head.aggregate, former.genesis.seed)
    origin = replace(given, **changes)  # type: ignore[arg-type] # of the fields' types
    genesis = replace(f.genesis(), origin=origin, shared_a=former.genesis.shared_a)
    run = RunFolder(folder / "after")
    run.folder.mkdir()
    (run.folder / "genesis.json").write_bytes(to_json(genesis.to_dict()))
    return run, genesis


def found(run: RunFolder, genesis: Genesis) -> Findings:
    findings = Findings()
    check_origin(run, genesis, findings)
    return findings


def test_a_run_that_names_what_another_served_holds(tmp_path: Path) -> None:
    findings = found(*descendant(tmp_path))
    assert (findings.failures, findings.checked["former runs"]) == ([], 1)


def test_where_the_other_run_is_not_here_there_is_nothing_to_compare(tmp_path: Path) -> None:
    for changes in ({"run": "elsewhere"}, {"genesis": f.other("another of this name")}):
        folder = tmp_path / str(changes["genesis" if "genesis" in changes else "run"])
        folder.mkdir()
        findings = found(*descendant(folder, **changes))
        assert (findings.failures, findings.checked["former runs"]) == ([], 0)
    assert not found(RunFolder(tmp_path), f.genesis()).failures


@pytest.mark.parametrize("changes", [{"record": f.other("x")}, {"state": f.other("x")}, {"seed": 99}])
def test_a_run_that_names_something_else_is_found(tmp_path: Path, changes: dict[str, object]) -> None:
    assert {failure.what for failure in found(*descendant(tmp_path, **changes)).failures} == {What.ORIGIN}
