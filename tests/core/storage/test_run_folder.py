"""A run on disk: whole or not at all, never rewritten, and never believed without its digest."""

import errno
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from core.calibration import Calibration, CalibrationRecord
from core.canonical import ZERO_DIGEST, to_json
from core.errors import IntegrityError, RunError, UsageError
from core.generations import GenerationRecord
from core.keys import create, derive
from core.membership import MembershipRecord, Proposal
from core.rotations import Rotation
from core.rounds import Salts
from core.signed import Signed
from core.storage import blobs
from core.storage.artifacts import Artifacts
from core.storage.blobs import write
from core.storage.run_folder import CALIBRATION, RunFolder
from tests import federation as f

LANES = (("medical", "coding"), ("financial", "mathematical"))
GENESIS = f.genesis(lanes=tuple(tuple(map(f.address, lane)) for lane in LANES))
READERS = f.readers(GENESIS)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.begin(GENESIS, READERS)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def documents(run: RunFolder) -> list[str]:
    return [name for name in files(run.folder) if not name.startswith("artifacts/")]


# --- records -------------------------------------------------------------------------------------------------------


def append(run: RunFolder, number: int = 1, attempt: int = 1, lane: int = 0, *, empty: bool = False) -> Salts:
    record = f.record(GENESIS, round=number, attempt=attempt, lane=lane, **({"admitted": ()} if empty else {}))
    salts = Salts.draw(record)
    run.append(record.sign(f.COORDINATOR, GENESIS.chain), salts)
    return salts


def test_the_genesis_comes_back(run: RunFolder) -> None:
    assert RunFolder(run.folder).genesis == GENESIS
    assert run.started


def test_a_run_is_founded_once(run: RunFolder) -> None:
    with pytest.raises(RunError, match="has a genesis already"):
        run.begin(f.genesis(seed=8), READERS)
    assert RunFolder(run.folder).genesis == GENESIS


def test_a_run_that_never_started_has_no_genesis(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "none")
    assert not run.started
    assert list(run.records()) == []
    with pytest.raises(UsageError, match="it never started"):
        _ = run.genesis


def test_records_come_back_by_lane_round_and_attempt(run: RunFolder) -> None:
    for number, attempt, lane, empty in [(10, 1, 0, False), (2, 2, 0, False), (1, 1, 1, False), (2, 1, 0, True)]:
        append(run, number, attempt, lane, empty=empty)
    places = [(s.value.lane, s.value.round, s.value.attempt) for s in run.records()]
    assert places == [(0, 2, 1), (0, 2, 2), (0, 10, 1), (1, 1, 1)]


def test_the_history_of_a_lane_leaves_out_the_rounds_that_admitted_nothing(run: RunFolder) -> None:
    append(run, 1)
    append(run, 2, 1, empty=True)
    append(run, 2, 2)
    append(run, 1, lane=1)
    assert [(s.value.round, s.value.attempt) for s in run.lineage(0)] == [(1, 1), (2, 2)]


def write_record(run: RunFolder, lane: int) -> None:
    record = f.record(GENESIS, lane=lane)
    signed = record.sign(f.COORDINATOR, GENESIS.chain)
    write(run.folder / "records" / f"{record.key.file_name}-A01.json", to_json(signed.to_dict()))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, in order."""
    names: list[str] = []

    def noted(path: Path) -> bytes:
        names.append(path.name)
        return blobs.read(path)

    monkeypatch.setattr("core.storage.run_folder.read", noted)
    return names


def test_of_many_lanes_one_reads_its_own_records(run: RunFolder, read: list[str]) -> None:
    lanes = (0, 1, 100, 1000, 1001, 10_000, 10_001)
    for lane in lanes:
        write_record(run, lane)
    for lane in lanes:
        read.clear()
        assert [signed.value.lane for signed in run.lineage(lane)] == [lane]
        assert read == [f"L{lane:04}-G0000-R00001-A01.json"]
    write(run.folder / "records" / "L0002-G0000-R00001-A01.json", (run.folder / "records" / read[0]).read_bytes())
    assert list(run.records(2)) == [], "a record is of the lane that it names"


def test_a_record_is_never_rewritten(run: RunFolder) -> None:
    salts = append(run)
    before = {name: (run.folder / name).read_bytes() for name in files(run.folder)}
    with pytest.raises(RunError, match="exists already and is never rewritten"):
        append(run)
    assert {name: (run.folder / name).read_bytes() for name in files(run.folder)} == before
    assert run.salts(next(run.records()).value) == salts


def test_a_record_never_stands_without_its_salts(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    calls = []

    def failing_later(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "full")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing_later)
    with pytest.raises(RunError):
        append(run)
    assert documents(run) == ["genesis.json", "readers.json", "salts/L0000-G0000-R00001-A01.json"]
    monkeypatch.undo()
    append(run)
    assert len(list(run.records())) == 1


def test_an_empty_round_has_no_salts(run: RunFolder) -> None:
    append(run, empty=True)
    assert documents(run) == ["genesis.json", "readers.json", "records/L0000-G0000-R00001-A01.json"]
    assert "salts/L0000-G0000-R00001-A01.json" not in run.artifacts.documents()


def test_commitments_of_a_lane_are_chained(run: RunFolder) -> None:
    append(run, 1)
    append(run, 2, 1, empty=True)
    append(run, 2, 2)
    append(run, 1, lane=1)
    first, second = (run.commitment(s.value) for s in run.lineage(0))
    assert first.parent == ZERO_DIGEST
    assert second.parent == first.aggregate
    assert run.commitment(run.lineage(1)[0].value).parent == ZERO_DIGEST
    assert run.commitment(run.lineage(0)[1].value) == second


@pytest.mark.parametrize("data", [b"", b"{}", b"{", b'{"record": 1}', b"[]"])
def test_a_damaged_record_is_named_in_one_line(run: RunFolder, data: bytes) -> None:
    append(run)
    (run.folder / "records" / "L0000-G0000-R00001-A01.json").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"L0000-G0000-R00001-A01\.json") as caught:
        list(run.records())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [None, b"", b"{}", b'{"aggregate":5,"updates":{}}'])
def test_damaged_salts_are_named_in_one_line(run: RunFolder, data: bytes | None) -> None:
    append(run)
    path = run.folder / "salts" / "L0000-G0000-R00001-A01.json"
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"L0000-G0000-R00001-A01\.json"):
        run.commitment(next(run.records()).value)


@pytest.mark.parametrize("data", [b"", b"{}", b"5"])
def test_a_damaged_genesis_is_named_in_one_line(run: RunFolder, data: bytes) -> None:
    (run.folder / "genesis.json").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"genesis\.json"):
        _ = RunFolder(run.folder).genesis


def test_partial_files_of_a_killed_process_are_not_records(run: RunFolder) -> None:
    append(run)
    (run.folder / "records" / ".L0000-G0000-R00002-A01.json.123.partial").write_bytes(b"half")
    assert len(list(run.records())) == 1


def test_records_sort_by_number_up_to_the_limits_of_the_settings(run: RunFolder) -> None:
    for number, attempt in [(99_999, 99), (99_999, 1), (1, 99), (1, 2)]:
        append(run, number, attempt)
    assert [(s.value.round, s.value.attempt) for s in run.records()] == [(1, 2), (1, 99), (99_999, 1), (99_999, 99)]
    assert replace(GENESIS.participation, retries=98).retries + 1 == 99


# --- what an auditor finds in the store ----------------------------------------------------------------------------


def test_every_document_has_a_sealed_copy_for_those_whom_it_concerns(run: RunFolder) -> None:
    append(run, 1)
    append(run, 1, lane=1)
    store = run.artifacts
    assert store.documents() == documents(run)
    for name in documents(run):
        assert store.open_document(name) == (run.folder / name).read_bytes()
    lane_0 = replace(store, key=f.key("medical"))
    assert lane_0.open_document("genesis.json")
    assert lane_0.open_document("records/L0000-G0000-R00001-A01.json")
    for name in ("records/L0001-G0000-R00001-A01.json", "salts/L0001-G0000-R00001-A01.json"):
        with pytest.raises(IntegrityError, match="expected the key of a reader"):
            lane_0.open_document(name)


def test_copies_that_a_crash_left_out_are_made_when_the_run_goes_on(run: RunFolder) -> None:
    append(run)
    wanted = run.artifacts.documents()
    for name in wanted:
        (run.folder / "artifacts" / name.replace(".json", ".sealed")).unlink()
    run.complete_copies()
    assert run.artifacts.documents() == wanted
    before = {path: path.read_bytes() for path in (run.folder / "artifacts").rglob("*.sealed")}
    run.complete_copies()
    assert {path: path.read_bytes() for path in (run.folder / "artifacts").rglob("*.sealed")} == before


def test_copies_of_many_changes_are_completed_in_one_go(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that were replaced one after the other are resealed once, and members read once."""
    run, owner = RunFolder(tmp_path / "run"), f.address("medical")
    run.begin(GENESIS, READERS)
    held = [f.key("medical"), *(derive(7, f"medical {number}") for number in range(3))]
    for number, (old, new) in enumerate(pairwise(held), start=1):
        said = Rotation(GENESIS.digest, owner, old.address, new.address, old.address)
        lane = next(lane for lane, members in enumerate(GENESIS.lanes) if owner in members)
        proposal = Proposal(GENESIS.digest, lane, number, f.other("head"), GENESIS.lanes[lane], ())
        made = MembershipRecord(GENESIS.digest, proposal, (), (), "11" * 32, (said.sign(old, GENESIS.chain, new),))
        run.change_members(made.sign(f.COORDINATOR, GENESIS.chain))
    wanted = run.artifacts.documents()
    assert len([name for name in wanted if name.startswith("memberships/")]) == 3
    for name in wanted:
        (run.folder / "artifacts" / name.replace(".json", ".sealed")).unlink()
    resealed: list[Artifacts] = []
    reseal = Artifacts.reseal

    def noted(artifacts: Artifacts) -> None:
        resealed.append(artifacts)
        reseal(artifacts)

    monkeypatch.setattr(Artifacts, "reseal", noted)
    again = RunFolder(run.folder)
    read.clear()
    again.complete_copies()
    assert len(resealed) == 1
    assert read.count("genesis.json") == 1
    assert again.artifacts.documents() == wanted
    assert replace(again.artifacts, key=held[-1]).open_document("genesis.json")


def test_a_store_elsewhere_holds_everything_but_the_record(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", f"memory://{tmp_path.name}/run")
    run.begin(GENESIS, READERS)
    append(run)
    assert files(run.folder) == documents(run)
    assert run.artifacts.documents() == documents(run)
    assert run.blobs.where == f"memory://{tmp_path.name}/run"


def test_a_simulation_needs_no_key_and_a_deployment_does(tmp_path: Path) -> None:
    simulation = RunFolder(tmp_path / "simulation")
    simulation.begin(GENESIS, READERS)
    assert simulation.key == f.COORDINATOR
    owner = create(tmp_path / "key")
    genesis = replace(GENESIS, coordinator=owner.address)
    deployment = RunFolder(tmp_path / "deployment")
    deployment.begin(genesis, replace(READERS, coordinator=owner.public))
    assert deployment.key is None
    with pytest.raises(UsageError, match="expected the key file of one of its readers, got none"):
        deployment.artifacts.open_document("genesis.json")
    for key in (owner, tmp_path / "key"):
        assert RunFolder(deployment.folder, key=key).artifacts.open_document("genesis.json")


@pytest.mark.parametrize("data", [None, b"", b"{}", b"5"])
def test_damaged_readers_are_named_in_one_line(run: RunFolder, data: bytes | None) -> None:
    path = run.folder / "readers.json"
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"readers\.json"):
        _ = RunFolder(run.folder).readers


# --- calibration ---------------------------------------------------------------------------------------------------


def calibration(noise: float) -> Signed[Calibration]:
    records = (CalibrationRecord(f.address("medical"), f.other("record")),)
    plain = Calibration(GENESIS.digest, f.other("served"), "gradient", noise, 0.4, 50.0, 0.02, records)
    return plain.sign(f.COORDINATOR, GENESIS.chain)


def test_a_calibration_takes_the_place_of_the_one_before_in_the_store_too(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "one", key=f.COORDINATOR)
    run.begin(GENESIS, READERS)
    assert run.calibration is None
    for noise in (0.4, 0.5):
        run.calibrate(calibration(noise))
        assert run.calibration == calibration(noise)
        assert run.artifacts.open_document(CALIBRATION) == (run.folder / CALIBRATION).read_bytes()


def test_a_copy_of_a_calibration_that_a_crash_left_out_is_completed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "one", key=f.COORDINATOR)
    run.begin(GENESIS, READERS)
    run.calibrate(calibration(0.4))
    run.artifacts.remove_document(CALIBRATION)
    run.complete_copies()
    assert run.artifacts.open_document(CALIBRATION) == (run.folder / CALIBRATION).read_bytes()


def test_nothing_is_left_of_a_calibration_once_a_generation_opens(run: RunFolder) -> None:
    run.calibrate(calibration(0.4))
    generation = GenerationRecord(
        GENESIS.digest, 0, 1, 0, 0, GENESIS.digest, GENESIS.digest, 2, f.other("erasure"), GENESIS.lanes[0][1:]
    )
    run.open_generation(generation.sign(f.COORDINATOR, GENESIS.chain))
    assert run.calibration is None
    assert not [name for name in files(run.folder) if "calibration" in name]
