"""What may be pruned, and what never may."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UsageError
from core.rounds import RoundRecord
from core.storage.blobs import write
from core.storage.retention import prunable
from core.storage.run_folder import credit_name
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import Federation, Lies, advance, build, compared, found


def aggregates(federation: Federation, lane: int = 0) -> list[str]:
    return [signed.value.aggregate for signed in federation.run.lineage(lane)]


def test_the_newest_rounds_stay(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=6, organisations=3)
    states = aggregates(federation)
    assert prunable(federation.run, 2) == frozenset(states[:4])
    assert prunable(federation.run, 5) == frozenset(states[:1])
    assert prunable(federation.run, 9) == frozenset()
    with pytest.raises(UsageError, match="--keep: expected 2 rounds or more, got 1"):
        prunable(federation.run, 1)


def test_the_round_before_an_organisations_first_update_stays(tmp_path: Path) -> None:
    federation = found(tmp_path / "run", rounds=6, organisations=3)
    everybody = federation.lanes[0].members
    federation.lanes[0].members = everybody[:2]
    advance(federation, 2)
    federation.lanes[0].members = everybody
    advance(federation, 6)
    states = aggregates(federation)
    assert prunable(federation.run, 2) == frozenset((states[0], *states[2:4]))


def test_the_round_that_a_generation_grows_from_stays(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=6, organisations=3)
    federation.fork(0, parent_round=2, without=federation.names(0)[0])
    advance(federation, 6)
    states = aggregates(federation)
    # Its one other round before the newest two, and the first: those of the generation before are an erasure's matter.
    assert prunable(federation.run, 2) == frozenset((states[0], states[2], states[3]))


def test_the_states_around_a_round_whose_credit_is_measured_stay(tmp_path: Path) -> None:
    def credited(federation: Federation, record: RoundRecord) -> RoundRecord:
        if record.round != 4:
            return record
        write(federation.run.folder / credit_name(record.key), b"what it was worth")
        return replace(record, credit=some_digest())

    federation = build(tmp_path / "run", rounds=8, organisations=3, lies=Lies(record=credited))
    states = aggregates(federation)
    # Credit projects the step before off: it takes the states after rounds 2, 3 and 4.
    assert prunable(federation.run, 2) == frozenset((states[0], *states[4:6]))


def test_a_state_that_is_an_update_too_stays(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=5, lanes=2, organisations=2)
    updates = {a.signed.value.update for s in federation.run.records() for a in s.value.admitted}
    assert not prunable(federation.run, 2) & updates


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        ({"rule": "svd"}, "got svd"),
        ({"lies": compared(*[1.0] * 9, serve="best")}, "got ones that are"),
    ],
)
def test_states_that_are_evidence_stay(tmp_path: Path, choices: dict[str, object], why: str) -> None:
    federation = build(tmp_path / "run", rounds=3, organisations=3, **choices)
    with pytest.raises(UsageError, match=why):
        prunable(federation.run, 2)
