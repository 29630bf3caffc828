"""A run on disk: whole or not at all, never rewritten, and never believed without its digest."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.adapter import AdapterState
from core.canonical import ZERO_DIGEST
from core.errors import IntegrityError, RunError, UsageError
from core.rounds import Salts
from core.store import Artifacts, RunFolder, write
from tests import federation as f

STATE = AdapterState({"m.lora_B": np.arange(6, dtype=np.float32).reshape(3, 2)})
GENESIS = f.genesis()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.begin(GENESIS)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- writing -------------------------------------------------------------------------------------------------------


def test_a_file_is_written_with_the_folders_it_needs(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "c", b"data")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"data"
    assert files(tmp_path) == ["a/b/c"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path / "c", b"long before")
    write(tmp_path / "c", b"new")
    assert (tmp_path / "c").read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    write(tmp_path / "c", b"before")
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(RunError, match=f"c: {os.strerror(code)}, .* wanted"):
        write(tmp_path / "c", b"after")
    assert files(tmp_path) == ["c"]
    assert (tmp_path / "c").read_bytes() == b"before"


def test_a_full_disk_says_how_much_was_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device, 4 bytes free wanted"):
        write(tmp_path / "c", b"data")


@pytest.fixture
def small_files() -> Iterator[None]:
    """The kernel refuses files above 64 KiB, as it would on a full disk in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_write_that_the_kernel_refuses_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="File too large"):
        write(tmp_path / "big", bytes(100_000))
    assert files(tmp_path) == []


@pytest.mark.usefixtures("small_files")
def test_an_artifact_that_could_not_be_stored_is_not_there(tmp_path: Path) -> None:
    big = AdapterState({"m.lora_B": np.zeros((200, 100), np.float32)})
    artifacts = Artifacts(tmp_path)
    with pytest.raises(RunError):
        artifacts.put(big)
    with pytest.raises(IntegrityError, match="cannot be read"):
        artifacts.open(big.digest)


def test_a_folder_that_cannot_be_made_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="a writable folder wanted"):
        write(tmp_path / "file" / "sub" / "c", b"data")


def test_a_process_killed_while_writing_leaves_no_half_file(tmp_path: Path) -> None:
    dying = (
        "import os, pathlib, sys; from core.store import write\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), 9)\n"
        "write(pathlib.Path(sys.argv[1]), b'half')"
    )
    done = subprocess.run([sys.executable, "-c", dying, str(tmp_path / "L0.json")], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "L0.json").exists()
    assert all(name.startswith(".") and name.endswith(".partial") for name in files(tmp_path))


# --- artifacts -----------------------------------------------------------------------------------------------------


def test_an_artifact_is_found_under_its_digest(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    name = artifacts.put(STATE)
    assert name == STATE.digest
    assert artifacts.path(name) == tmp_path / name[2:4] / f"{name[4:]}.safetensors"
    assert artifacts.open(name) == STATE


def test_storing_an_artifact_again_changes_nothing(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    artifacts.put(STATE)
    before = artifacts.path(STATE.digest).stat()
    artifacts.put(STATE)
    assert artifacts.path(STATE.digest).stat() == before


@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_flipped_bit_in_an_artifact_is_found(tmp_path: Path, position: int) -> None:
    artifacts = Artifacts(tmp_path)
    path = artifacts.path(artifacts.put(STATE))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"has digest 0x.*, {STATE.digest} wanted"):
        artifacts.open(STATE.digest)


def test_another_artifact_in_its_place_is_found(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    write(artifacts.path(STATE.digest), AdapterState({}).to_bytes())
    with pytest.raises(IntegrityError, match="has digest"):
        artifacts.open(STATE.digest)


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_an_artifact_that_is_not_there_is_found(tmp_path: Path, content: bytes | None) -> None:
    artifacts = Artifacts(tmp_path)
    if content is not None:
        write(artifacts.path(STATE.digest), content)
    with pytest.raises(IntegrityError, match="cannot be read"):
        artifacts.open(STATE.digest)


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
        run.begin(f.genesis(seed=8))
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
    places = [(s.record.lane, s.record.round, s.record.attempt) for s in run.records()]
    assert places == [(0, 2, 1), (0, 2, 2), (0, 10, 1), (1, 1, 1)]


def test_the_history_of_a_lane_leaves_out_the_rounds_that_admitted_nothing(run: RunFolder) -> None:
    append(run, 1)
    append(run, 2, 1, empty=True)
    append(run, 2, 2)
    append(run, 1, lane=1)
    assert [(s.record.round, s.record.attempt) for s in run.history(0)] == [(1, 1), (2, 2)]


def test_a_record_is_never_rewritten(run: RunFolder) -> None:
    salts = append(run)
    before = {name: (run.folder / name).read_bytes() for name in files(run.folder)}
    with pytest.raises(RunError, match="exists already and is never rewritten"):
        append(run)
    assert {name: (run.folder / name).read_bytes() for name in files(run.folder)} == before
    assert run.salts(next(run.records()).record) == salts


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
    assert files(run.folder) == ["genesis.json", "salts/L0000-G0000-R00001-A01.json"]
    monkeypatch.undo()
    append(run)
    assert len(list(run.records())) == 1


def test_an_empty_round_has_no_salts(run: RunFolder) -> None:
    append(run, empty=True)
    assert files(run.folder) == ["genesis.json", "records/L0000-G0000-R00001-A01.json"]


def test_commitments_of_a_lane_are_chained(run: RunFolder) -> None:
    append(run, 1)
    append(run, 2, 1, empty=True)
    append(run, 2, 2)
    append(run, 1, lane=1)
    first, second = (run.commitment(s.record) for s in run.history(0))
    assert first.parent == ZERO_DIGEST
    assert second.parent == first.aggregate
    assert run.commitment(run.history(1)[0].record).parent == ZERO_DIGEST
    assert run.commitment(run.history(0)[1].record) == second


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
        run.commitment(next(run.records()).record)


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
    assert [(s.record.round, s.record.attempt) for s in run.records()] == [(1, 2), (1, 99), (99_999, 1), (99_999, 99)]
    assert replace(GENESIS.participation, retries=98).retries + 1 == 99
