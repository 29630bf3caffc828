"""JSON Lines: entries are there whole or not at all, whoever dies while writing."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import FormatError, IntegrityError, RunLockedError
from core.storage.jsonl import JsonLines, append, read, read_lines

TORN = b'{"number":'
ENTRIES = [{"number": 1}, {"number": 2, "text": "ü\n"}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "log.jsonl"


def test_entries_are_read_in_the_order_in_which_they_were_appended(path: Path) -> None:
    for entry in ENTRIES:
        append(path, entry)
    assert read(path) == ENTRIES
    assert path.read_bytes() == '{"number":1}\n{"number":2,"text":"ü\\n"}\n'.encode()


def test_a_missing_file_has_no_entries(path: Path) -> None:
    assert read(path) == []
    assert read_lines(path, 7) == ([], 7, False)
    assert not path.exists()


def append_once(path: Path) -> None:
    append(path, ENTRIES[1])


def append_through_a_writer(path: Path) -> None:
    with JsonLines(path) as file:
        file.append(ENTRIES[1])


@pytest.mark.parametrize("write", [append_once, append_through_a_writer])
def test_a_torn_line_is_left_out_by_readers_and_cut_off_by_the_next_writer(
    path: Path, write: Callable[[Path], None]
) -> None:
    append(path, ENTRIES[0])
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(TORN)
    assert read(path) == ENTRIES[:1]
    assert read_lines(path) == ([b'{"number":1}'], whole, True)
    write(path)
    assert read(path) == ENTRIES


@pytest.mark.parametrize("content", [TORN, b'{"number":1}\n' + TORN])
def test_opening_cuts_a_torn_line_off_although_nothing_is_appended(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    JsonLines(path).close()
    assert path.read_bytes() == content.removesuffix(TORN)


def test_a_writer_cuts_off_its_own_torn_line(path: Path) -> None:
    with JsonLines(path) as file:
        file.append(ENTRIES[0])
        file._file.write(TORN)  # what a disk leaves that is full for a moment
        file.append(ENTRIES[1])
    assert read(path) == ENTRIES


def test_a_writer_that_could_not_cut_off_a_torn_line_lets_the_next_one_in(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(path, ENTRIES[0])
    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "_cut", refused)
        with pytest.raises(OSError, match="No space left") as kept:
            JsonLines(path)
    append_through_a_writer(path)  # refused while there is another, whom the kept error would keep
    assert kept.value.errno == errno.ENOSPC
    assert read(path) == ENTRIES


def refused(_: JsonLines) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_reading_goes_on_where_it_stopped(path: Path) -> None:
    append(path, ENTRIES[0])
    end = read_lines(path).end
    assert read_lines(path, end) == ([], end, False)
    append(path, ENTRIES[1])
    assert read_lines(path, end) == ([path.read_bytes()[end:-1]], path.stat().st_size, False)


@pytest.mark.parametrize("damage", [b"{broken", b'{"number": 1}', b""])
def test_a_whole_line_that_is_not_canonical_json_is_damage(path: Path, damage: bytes) -> None:
    append(path, ENTRIES[0])
    with path.open("ab") as file:
        file.write(damage + b"\n")
    with pytest.raises(IntegrityError, match=f"line 2 of {path}"):
        read(path)


def test_an_entry_that_is_no_json_is_refused_and_leaves_nothing(path: Path) -> None:
    with pytest.raises(FormatError):
        append(path, {"number": float("nan")})
    assert read(path) == []


def test_a_second_writer_is_refused_or_waits(path: Path) -> None:
    with JsonLines(path) as file:
        with pytest.raises(RunLockedError, match=str(path)):
            JsonLines(path)
        waiting = threading.Thread(target=append, args=(path, ENTRIES[1]))
        waiting.start()
        file.append(ENTRIES[0])
    waiting.join()
    assert read(path) == ENTRIES


@pytest.mark.parametrize("sync", [True, False])
def test_entries_are_synced_when_asked(path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    append(path, ENTRIES[0], sync=sync)
    assert len(synced) == sync


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        append(tmp_path / "file" / "log.jsonl", ENTRIES[0])


WRITER = """
import sys
from pathlib import Path
from core.storage.jsonl import append
for number in range(100_000):
    append(Path(sys.argv[1]), {"number": number})
    print(number, flush=True)
"""


def test_kill_9_loses_no_entry_that_was_appended(path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "20":
        pass
    process.send_signal(signal.SIGKILL)
    last = [20, *map(int, process.stdout.read().split())][-1]
    process.stdout.close()
    process.wait()
    entries: list[dict[str, Any]] = read(path)
    assert [entry["number"] for entry in entries] == list(range(len(entries)))
    assert len(entries) in (last + 1, last + 2)
