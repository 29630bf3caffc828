"""Generations: one form, one digest, one signer, and the line that is left of a lane."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.canonical import ZERO_DIGEST, from_json, to_json
from core.errors import ForgeryError, FormatError, RunError
from core.generations import GenerationRecord, lineage
from core.rounds import RoundRecord, Salts
from core.signed import Signed
from core.storage.run_folder import RunFolder
from tests import federation as f

GENESIS = f.genesis()
PLAIN = f.record(GENESIS)
GENERATION = GenerationRecord(
    genesis=GENESIS.digest,
    lane=0,
    generation=1,
    parent_generation=0,
    parent_round=1,
    parent=PLAIN.digest,
    previous=f.other("newest"),
    rounds=2,
    erasure=f.other("erasure"),
    members=GENESIS.lanes[0][1:],
)
SIGNED = GENERATION.sign(f.COORDINATOR, GENESIS.chain)


def test_a_generation_is_read_back_as_it_was_written() -> None:
    assert Signed.parse(GenerationRecord, from_json(to_json(SIGNED.to_dict()))) == SIGNED
    assert SIGNED.verified(GENESIS) == GENERATION


CHANGES: dict[str, Any] = {
    "genesis": f.other("genesis"),
    "lane": 1,
    "generation": 2,
    "parent_generation": 1,
    "parent_round": 2,
    "parent": f.other("parent"),
    "previous": f.other("previous"),
    "rounds": 3,
    "erasure": f.other("another"),
    "members": GENESIS.lanes[0],
    "membership": f.other("membership"),
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_of_a_generation_is_signed_and_in_the_digest(field: str) -> None:
    assert set(CHANGES) == set(GENERATION.to_dict())
    changed = replace(GENERATION, **{field: CHANGES[field]})
    assert changed.digest != GENERATION.digest
    with pytest.raises(ForgeryError):
        Signed(changed, SIGNED.signatures).verified(GENESIS)


def test_a_generation_that_the_coordinator_did_not_sign_is_refused() -> None:
    forged = GENERATION.sign(f.key("medical"), GENESIS.chain)
    with pytest.raises(ForgeryError, match=f"got that of {f.address('medical')}"):
        forged.verified(GENESIS)


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 0},
        {"parent_generation": 1},
        {"parent_round": -1},
        {"rounds": 0},
        {"members": ["me"]},
        {"erasure": "0x"},
        {"x": 1},
    ],
    ids=str,
)
def test_a_malformed_generation_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        GenerationRecord.from_dict(GENERATION.to_dict() | changes)


# --- the line that is left -----------------------------------------------------------------------------------------


def closed(generation: int, number: int) -> Signed[RoundRecord]:
    return replace(PLAIN, generation=generation, round=number).sign(f.COORDINATOR, GENESIS.chain)


def opening(generation: int, parent_generation: int, parent_round: int) -> GenerationRecord:
    return replace(GENERATION, generation=generation, parent_generation=parent_generation, parent_round=parent_round)


def line(places: list[tuple[int, int]], *openings: tuple[int, int, int]) -> list[tuple[int, int]]:
    records = [closed(*place) for place in places]
    found = lineage(records, {generation: opening(generation, *parent) for generation, *parent in openings})
    return [(signed.value.generation, signed.value.round) for signed in found]


FIRST = [(0, 1), (0, 2), (0, 3)]


def test_without_an_erasure_every_round_is_in_line() -> None:
    assert line(FIRST) == FIRST


def test_a_generation_grows_from_its_parent_round() -> None:
    assert line([*FIRST, (1, 2), (1, 3)], (1, 0, 1)) == [(0, 1), (1, 2), (1, 3)]


def test_a_generation_without_rounds_ends_at_its_parent_round() -> None:
    assert line(FIRST, (1, 0, 2)) == [(0, 1), (0, 2)]
    assert line(FIRST, (1, 0, 0)) == []


def test_a_line_may_go_through_several_generations_and_back() -> None:
    places = [*FIRST, (1, 2), (1, 3), (2, 3), (3, 1)]
    assert line(places, (1, 0, 1), (2, 1, 2)) == [(0, 1), (1, 2), (2, 3)]
    assert line(places, (1, 0, 1), (2, 0, 2)) == [(0, 1), (0, 2), (2, 3)]
    assert line(places, (1, 0, 1), (2, 1, 2), (3, 0, 0)) == [(3, 1)]


def test_a_round_that_admitted_nothing_is_in_no_line() -> None:
    empty = replace(PLAIN, admitted=(), round=2).sign(f.COORDINATOR, GENESIS.chain)
    assert [s.value.round for s in lineage([closed(0, 1), empty], {})] == [1]


# --- in a run folder -----------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two rounds, then a generation that grows from the first, with one round tried twice."""
    run = RunFolder(tmp_path / "run")
    run.begin(GENESIS, f.readers(GENESIS))
    for record in (
        PLAIN,
        replace(PLAIN, round=2),
        replace(PLAIN, generation=1, round=2, admitted=()),
        replace(PLAIN, generation=1, round=2, attempt=2),
        replace(PLAIN, generation=1, round=3),
    ):
        if record.generation and not run.generations(0):
            run.open_generation(SIGNED)
        run.append(record.sign(f.COORDINATOR, GENESIS.chain), Salts.draw(record))
    return run


def test_a_run_s_line_goes_through_its_generations(run: RunFolder) -> None:
    found = [(s.value.generation, s.value.round) for s in run.lineage(0)]
    assert found == [(0, 1), (1, 2), (1, 3)]
    assert run.generations(0) == {1: SIGNED}
    assert run.members(0, 0) == GENESIS.lanes[0]
    assert run.members(0, 1) == GENERATION.members


def test_every_round_is_committed_behind_the_one_that_it_grows_from(run: RunFolder) -> None:
    commitments = {
        (s.value.generation, s.value.round): run.commitment(s.value) for s in run.records() if s.value.admitted
    }
    parents = {place: commitment.parent for place, commitment in commitments.items()}
    assert parents == {
        (0, 1): ZERO_DIGEST,
        (0, 2): commitments[0, 1].aggregate,
        (1, 2): commitments[0, 1].aggregate,
        (1, 3): commitments[1, 2].aggregate,
    }


def test_a_generation_is_opened_once(run: RunFolder) -> None:
    with pytest.raises(RunError, match="never rewritten"):
        run.open_generation(SIGNED)


def test_an_auditor_finds_a_sealed_copy_of_what_opened_a_generation(run: RunFolder) -> None:
    name = "generations/L0000-G0001.json"
    assert run.artifacts.open_document(name) == (run.folder / name).read_bytes()
