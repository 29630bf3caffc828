"""The audit of a run with an erasure in it: both lines hold, and what opened the second is checked."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.audit.run import AuditReport, What, verify
from core.canonical import to_json
from core.generations import GenerationRecord
from core.ledger import LaneHead, MemoryLedger
from core.rounds import RoundRecord
from core.signed import Signed
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import COORDINATOR, NAMES, Federation, Lies, advance, build

ERASED = NAMES[0]
OPENING = "generations/L0000-G0001.json"


def erased(folder: Path, lies: Lies | None = None, parent_round: int = 1) -> Federation:
    """Three rounds; then again from an earlier one, without an organisation."""
    federation = build(folder / "run", rounds=3, organisations=3, lies=lies)
    federation.fork(0, parent_round, without=ERASED)
    advance(federation, 3, {(0, 3): 1})
    return federation


def failures(report: AuditReport) -> list[str]:
    return [str(failure) for failure in report.failures]


@pytest.mark.parametrize("parent_round", [0, 1, 2])
def test_every_generation_of_an_honest_run_holds(tmp_path: Path, parent_round: int) -> None:
    federation = erased(tmp_path, parent_round=parent_round)
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert (report.recomputed, report.checked["generations"]) == (6 - parent_round, 1)
    line = [(s.value.generation, s.value.round) for s in federation.run.lineage(0)]
    assert line == [(0, n) for n in range(1, parent_round + 1)] + [(1, n) for n in range(parent_round + 1, 4)]


def test_a_lane_may_fork_again_and_from_any_round(tmp_path: Path) -> None:
    federation = erased(tmp_path)
    federation.fork(0, 2, without=NAMES[1])
    advance(federation, 3)
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert (report.recomputed, report.checked["generations"]) == (6, 2)


def test_a_generation_that_was_only_opened_holds(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=2, organisations=3)
    federation.fork(0, 1, without=ERASED)
    assert failures(verify(federation.run, federation.ledger)) == []
    assert federation.ledger.head(federation.genesis.digest, 0).generation == 1


def test_a_round_behind_the_last_is_found(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=2)
    advance(federation, 3)
    (failure,) = verify(federation.run, federation.ledger).failures
    assert (failure.what, failure.where, failure.got) == (What.ROUNDS, "lane 0", "round 3")


def generation(**changes: Any) -> Lies:
    return Lies(generation=lambda record: replace(record, **changes))


def come_back(federation: Federation, record: RoundRecord) -> RoundRecord:
    """The erased organisation is in a round of the next generation."""
    if record.generation == 0 or not record.admitted:
        return record
    first = next(s.value for s in federation.run.records() if s.value.round == record.round)
    return replace(record, admitted=first.admitted)


LIES: dict[str, tuple[Lies, What, str]] = {
    "another parent": (generation(parent=some_digest()), What.PARENT, OPENING),
    "another record before": (generation(previous=some_digest()), What.PREVIOUS, OPENING),
    "an erasure that nobody attested": (generation(erasure=some_digest()), What.NOT_ON_LEDGER, OPENING),
    "an organisation from nowhere": (generation(members=(COORDINATOR.address,)), What.MEMBERS, OPENING),
    "more rounds than were attested": (generation(rounds=4), What.GENERATION, "erasures/L0000-G0001.json"),
    "more rounds than a repair adds": (generation(rounds=10), What.ROUNDS, OPENING),
    "an organisation that is erased and admitted": (Lies(record=come_back), What.REAGGREGATED, "round 2, lane 0, "),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_a_generation_is_found(tmp_path: Path, lie: str) -> None:
    lies, what, where = LIES[lie]
    federation = build(tmp_path / "run", rounds=3, organisations=3, lies=lies)
    federation.fork(0, 1, without=ERASED)
    if lie.endswith("admitted"):
        advance(federation, 3)
    found = {
        (failure.what, failure.where.startswith(where))
        for failure in verify(federation.run, federation.ledger, strict=True).failures
    }
    assert (what.value, True) in found


def resign(change: Callable[[GenerationRecord], GenerationRecord]) -> Callable[[Federation], None]:
    def tamper(federation: Federation) -> None:
        path = federation.run.folder / OPENING
        record = Signed.parse(GenerationRecord, json.loads(path.read_bytes())).value
        path.write_bytes(to_json(change(record).sign(COORDINATOR, federation.genesis.chain).to_dict()))

    return tamper


def by_another(federation: Federation) -> None:
    path = federation.run.folder / OPENING
    record = Signed.parse(GenerationRecord, json.loads(path.read_bytes())).value
    path.write_bytes(to_json(record.sign(federation.members[ERASED], federation.genesis.chain).to_dict()))


TAMPERING: dict[str, tuple[Callable[[Federation], object], What, str]] = {
    "signed by another": (by_another, What.SIGNATURE, OPENING),
    "members signed anew": (
        resign(lambda record: replace(record, members=record.members[:1])),
        What.PREVIOUS,
        "round 2, lane 0, records/L0000-G0001-R00002-A01.json",
    ),
    "left out": (lambda f: (f.run.folder / OPENING).unlink(), What.GENERATION, "round 2, lane 0, records/L0000-G0001"),
    "not canonical": (lambda f: (f.run.folder / OPENING).write_bytes(b"{}"), What.GENERATION, OPENING),
    "under another number": (
        lambda f: (f.run.folder / OPENING).rename(f.run.folder / OPENING.replace("G0001", "G0002")),
        What.GENERATION,
        OPENING.replace("G0001", "G0002"),
    ),
}


@pytest.mark.parametrize("case", TAMPERING)
def test_tampering_with_what_opened_a_generation_is_found(tmp_path: Path, case: str) -> None:
    tamper, what, where = TAMPERING[case]
    federation = erased(tmp_path)
    tamper(federation)
    found = {
        (failure.what, failure.where.startswith(where))
        for failure in verify(federation.run, federation.ledger).failures
    }
    assert (what.value, True) in found


def test_a_generation_on_the_ledger_that_the_records_lack_is_found(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=2, organisations=3)

    class Further(MemoryLedger):
        def head(self, run: object, lane: int) -> LaneHead:
            return replace(federation.ledger.head(federation.genesis.digest, lane), generation=1)

    further = Further()
    further.__dict__.update(federation.ledger.__dict__)
    (failure,) = verify(federation.run, further).failures
    assert (failure.what, failure.where, failure.got) == (What.NOT_RECORDED, "lane 0", "generation 1")
