"""What papers say of an adapter's origin: its served rounds, who is in them, and how they are called."""

from dataclasses import replace
from pathlib import Path

import pytest

from console.papers.origin import Origin
from core.canonical import ZERO_DIGEST
from core.origins import FormerRun
from core.storage.state_folder import State
from tests import federation as f
from tests.behaviours.runs import Federation, build


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "state" / "runs" / "run", rounds=2)


def origin_of(federation: Federation, *, named: bool = False) -> Origin:
    folder = federation.run.folder
    return Origin(State(folder.parent.parent), federation.run, ZERO_DIGEST, named)


def continuing(origin: Origin) -> FormerRun:
    """Have a paper's run continue another one, which this returns."""
    former = FormerRun("before", f.other("genesis"), f.other("record"), f.other("state"), 7)
    origin.run.__dict__["genesis"] = replace(origin.run.genesis, origin=former)
    return former


def test_teachers_are_those_whose_updates_are_served(federation: Federation) -> None:
    origin = origin_of(federation)
    assert [(t.called, t.updates) for t in origin.teachers] == [
        (o.address, 2) for o in sorted(federation.genesis.organisations, key=lambda o: o.address)
    ]
    assert {t.called for t in origin_of(federation, named=True).teachers} == set(federation.genesis.names.values())


def test_the_head_is_the_last_round_with_what_opens_its_commitment(federation: Federation) -> None:
    (head,) = origin_of(federation).heads
    assert head.record.round == 2
    assert head.salts
    assert head.salts.aggregate_commitment(head.record) == federation.run.commitment(head.record).aggregate


def test_destroyed_salts_open_nothing(federation: Federation) -> None:
    origin = origin_of(federation)
    federation.run.destroy_salts(origin.heads[0].record)
    (head,) = origin_of(federation).heads
    assert head.salts is None


def test_of_what_nobody_measured_no_loss_is_told(federation: Federation) -> None:
    assert origin_of(federation).losses == []
