"""The preview of an erasure is its plan, and one erasure at a time is at work."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from console.web.erasing import METHODS, ErasureProcesses, preview
from core.errors import UsageError
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from tests.commands import World
from unlearning.plan import METHODS as PLANNED

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def run(finished: World) -> RunFolder:
    return State.at(finished.state).existing()


def test_the_methods_of_the_dialogue_are_those_of_whole_organisations() -> None:
    assert set(METHODS) == set(PLANNED) - {"shards"}


@pytest.mark.parametrize(
    ("method", "label", "again", "trained"),
    [("remove", "interim", 2, 0), ("repair", "approximate", 2, 4), ("replay", "exact", 0, 2)],
)
def test_a_preview_is_the_plan(
    finished: World, run: RunFolder, method: str, label: str, again: int, trained: int
) -> None:
    (lane,) = preview(State.at(finished.state), run, run.genesis.named("medical").address, method)
    assert (lane["label"], lane["reaggregated"], lane["trained"], lane["kept"]) == (label, again, trained, 0)
    assert lane["destroyed"] > 0
    assert lane["bytes"] > 0
    assert set(lane["holders"]) == {"coding", "financial", "medical"}
    assert (lane["seconds"] == 0) == (trained == 0)


def test_a_preview_of_what_cannot_be_done_is_refused(finished: World, run: RunFolder) -> None:
    with pytest.raises(UsageError, match="method"):
        preview(State.at(finished.state), run, run.genesis.named("medical").address, "shards")


def test_one_erasure_at_a_time_and_how_it_ended(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = subprocess.Popen

    def instead(arguments: list[str], **settings: Any) -> "subprocess.Popen[bytes]":
        assert arguments[3:5] == ["forget", run.name]
        code = "import sys, time; time.sleep(1); print('foedus: expected this'); sys.exit(2)"
        return made([sys.executable, "-c", code], **settings)

    monkeypatch.setattr("console.web.erasing.subprocess.Popen", instead)
    erasures = ErasureProcesses(State.at(tmp_path / "state"))
    assert erasures.outcome(run.name) is None
    erasures.start(run, "medical", "remove")
    assert erasures.running(run.name)
    with pytest.raises(UsageError, match="expected no erasure at work"):
        erasures.start(run, "medical", "remove")
    while erasures.running(run.name):
        time.sleep(0.02)
    assert erasures.outcome(run.name) == {"code": 2, "line": "foedus: expected this"}
