"""The preview of an erasure is its plan, and one erasure at a time is at work."""

import stat
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from console.web.erasing import METHODS, ErasureProcesses, digests_in, preview
from core.config import RunConfig
from core.errors import DataError, UsageError
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from tests.commands import World
from tests.waiting import until
from unlearning.plan import METHODS as PLANNED
from unlearning.requests import derived_request, read_request

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def run(finished: World) -> RunFolder:
    return State.at(finished.state).existing()


RECORD = '{"question": "medical 3?", "answer": "med 9"}'


def test_the_methods_of_the_dialogue_are_all_that_there_are() -> None:
    assert set(METHODS) == set(PLANNED)


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


def test_a_preview_of_records_says_what_is_trained_again_with_the_organisation_in_it(
    finished: World, run: RunFolder
) -> None:
    medical, state = run.genesis.named("medical").address, State.at(finished.state)
    digests = digests_in(f"{RECORD}\r\n{RECORD}\r\n")
    assert len(digests) == 1
    (lane,) = preview(state, run, medical, "replay", digests)
    assert (lane["label"], lane["trained"]) == ("exact", 2)


def test_a_preview_of_what_cannot_be_done_is_refused(finished: World, run: RunFolder) -> None:
    medical, state = run.genesis.named("medical").address, State.at(finished.state)
    for method, records in (("shards", ()), ("remove", digests_in(RECORD))):
        with pytest.raises(UsageError, match="method"):
            preview(state, run, medical, method, records)
    with pytest.raises(DataError, match="records:2"):
        digests_in(f"{RECORD}\nnothing")
    assert digests_in(" \n") == ()


def test_one_erasure_at_a_time_by_a_signed_request_that_is_gone_with_it(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, state = subprocess.Popen, State.at(tmp_path / "state")
    asked = replace(RunConfig(), organisation="medical", method="replay")
    opened = derived_request(asked, run.genesis, digests_in(RECORD))
    files, goes_on = list[Path](), tmp_path / "goes on"

    def instead(arguments: list[str], **settings: Any) -> "subprocess.Popen[bytes]":
        assert arguments[3:5] == ["forget", run.name]
        assert ("--base", "elsewhere") in pairwise(arguments)
        file = Path(arguments[-1])
        assert read_request(file) == opened
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "med 9" not in file.read_text(encoding="utf-8")
        files.append(file)
        entry = "def main():\n from tests.waiting import until\n from pathlib import Path\n"
        entry += f" until(Path({str(goes_on)!r}).exists)\n print('foedus: expected this')\n sys.exit(2)"
        code = arguments[2].replace("from console.entry import main", entry)
        return made([sys.executable, "-c", code, *arguments[3:]], **settings)

    monkeypatch.setattr("console.web.erasing.subprocess.Popen", instead)
    erasures = ErasureProcesses(state, "elsewhere")
    assert erasures.outcome(run.name) is None
    erasures.start(run, opened)
    assert erasures.running(run.name)
    with pytest.raises(UsageError, match="expected no erasure at work"):
        erasures.start(run, opened)
    goes_on.touch()
    until(lambda: not erasures.running(run.name))
    assert erasures.outcome(run.name) == {"code": 2, "line": "foedus: expected this"}
    assert not files[0].exists()
