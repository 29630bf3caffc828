"""The store under the embedded chain: whole commits only, whoever dies while writing, and no damage unseen."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.devnet.store import Store
from core.errors import IntegrityError

KEYS = st.binary(max_size=3)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=20)), min_size=1, max_size=5)
COMMITS = st.lists(CHANGES, max_size=5)
Commits = list[list[tuple[bytes, bytes | None]]]
THREE: Commits = [[(b"a", b"1")], [(b"b", b"2")], [(b"c", b"3")]]


def write(path: Path, commits: Commits) -> list[dict[bytes, bytes]]:
    """Write a store; returns what it holds after each commit, the first entry before any.

    Beside it lies what a crash at that moment would have left: the copy in the folder `crashed`.
    """
    shutil.rmtree(path.parent, ignore_errors=True)
    store = Store(path)
    states: list[dict[bytes, bytes]] = [{}]
    for changes in commits:
        for key, value in changes:
            if value is not None:
                store[key] = value
            elif key in store:
                del store[key]
        store.commit()
        states.append(dict(store))
    shutil.copytree(path.parent, path.parent / "crashed")
    store.close()
    return states


def log_of(path: Path) -> Path:
    """The write-ahead log that a crash leaves beside a store."""
    return path.with_name(f"{path.name}-wal")


def reopened(path: Path) -> dict[bytes, bytes]:
    store = Store(path)
    found = dict(store)
    store.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "store.sqlite"


@given(COMMITS)
def test_what_was_committed_is_there_when_reopened(tmp_path_factory: pytest.TempPathFactory, commits: Commits) -> None:
    path = tmp_path_factory.getbasetemp() / "reopened" / "store.sqlite"
    states = write(path, commits)
    assert reopened(path) == states[-1]
    assert reopened(path.parent / "crashed" / path.name) == states[-1]


@settings(max_examples=30)
@given(COMMITS, st.data())
def test_a_log_cut_anywhere_holds_the_commits_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, commits: Commits, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut" / "store.sqlite"
    states = write(path, commits)
    crashed = path.parent / "crashed" / path.name
    whole = log_of(crashed).read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    zeros = data.draw(st.booleans())
    log_of(crashed).write_bytes(whole[:cut] + bytes(len(whole) - cut) * zeros)
    found = reopened(crashed)
    assert found in states
    assert reopened(crashed) == found


@pytest.mark.parametrize("zeros", [0, 1])
def test_a_cut_loses_only_the_last_commit(path: Path, zeros: int) -> None:
    states = write(path, THREE)
    crashed = path.parent / "crashed" / path.name
    log_of(crashed).write_bytes(log_of(crashed).read_bytes()[:-1] + bytes(zeros))
    assert reopened(crashed) == states[2]


def test_a_store_goes_on_after_a_cut(path: Path) -> None:
    write(path, THREE[:2])
    crashed = path.parent / "crashed" / path.name
    log_of(crashed).write_bytes(log_of(crashed).read_bytes()[:-1])
    store = Store(crashed)
    store[b"c"] = b"3"
    store.commit()
    store.close()
    assert reopened(crashed) == {b"a": b"1", b"c": b"3"}


def test_a_flipped_bit_in_a_value_is_damage(path: Path) -> None:
    value = b"a value that stands once in the file"
    write(path, [[(b"a", value)], [(b"b", b"2")]])
    content = path.read_bytes()
    assert content.count(value) == 1
    path.write_bytes(content.replace(value, value[:-1] + bytes([value[-1] ^ 1])))
    store = Store(path)
    with pytest.raises(IntegrityError, match=f"{path} is damaged.* {b'a'.hex()}"):
        store[b"a"]
    assert store[b"b"] == b"2"
    store.close()


def test_what_was_not_committed_is_gone(path: Path) -> None:
    store = Store(path)
    store[b"a"] = b"1"
    assert store[b"a"] == b"1"
    store.close()
    assert reopened(path) == {}


def test_what_is_not_there_is_a_key_error(path: Path) -> None:
    store = Store(path)
    for missing in (lambda: store[b"a"], lambda: store.__delitem__(b"a")):
        with pytest.raises(KeyError):
            missing()
    assert len(store) == 0
    store[b"a"] = b""
    assert len(store) == 1
    assert b"a" in store
    store.close()


def test_another_file_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else altogether")
    with pytest.raises(IntegrityError, match=str(path)):
        Store(path)


def test_a_path_that_cannot_be_opened_is_an_os_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(OSError, match=str(path)):
        Store(path)


def test_a_disk_that_is_full_is_an_os_error(path: Path) -> None:
    store = Store(path)
    store._execute("PRAGMA max_page_count = 3")
    with pytest.raises(OSError, match=f"{path}: database or disk is full"):
        store.update((number.to_bytes(2, "big"), bytes(1000)) for number in range(100))
    store.close()


def test_commits_are_synced_to_the_log(path: Path) -> None:
    store = Store(path)
    settings = {name: store._execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert settings == {"journal_mode": "wal", "synchronous": 2}
    store.close()


WRITER = """
import sys
from pathlib import Path
from chain.devnet.store import Store
store = Store(Path(sys.argv[1]))
for number in range(100_000):
    store[number.to_bytes(4, "big")] = store[b"newest"] = number.to_bytes(4, "big")
    store.commit()
    print(number, flush=True)
"""


def test_kill_9_loses_no_commit(path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "20":
        pass
    process.send_signal(signal.SIGKILL)
    last = [20, *map(int, process.stdout.read().split())][-1]
    process.stdout.close()
    process.wait()
    store = Store(path)
    newest = int.from_bytes(store[b"newest"], "big")
    assert newest in (last, last + 1)
    assert len(store) == newest + 2
    store.close()
