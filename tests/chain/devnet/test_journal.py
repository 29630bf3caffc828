from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.devnet.journal import MAGIC, Journal
from core.errors import IntegrityError

KEYS = st.binary(max_size=3)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=20)), min_size=1, max_size=5)
COMMITS = st.lists(CHANGES, max_size=5)


def write(path: Path, commits: list[list[tuple[bytes, bytes | None]]]) -> list[dict[bytes, bytes]]:
    """Write a journal; returns what it holds after each commit, the first entry before any."""
    path.unlink(missing_ok=True)
    journal = Journal(path)
    states: list[dict[bytes, bytes]] = [{}]
    for changes in commits:
        for key, value in changes:
            if value is not None:
                journal[key] = value
            elif key in journal:
                del journal[key]
        journal.commit()
        states.append(dict(journal))
    journal.close()
    return states


def reopened(path: Path) -> dict[bytes, bytes]:
    journal = Journal(path)
    journal.close()
    return dict(journal)


@given(COMMITS)
def test_what_was_committed_is_there_when_reopened(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[tuple[bytes, bytes | None]]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "journal"
    assert write(path, commits)[-1] == reopened(path)


@settings(max_examples=30)
@given(COMMITS, st.data())
def test_a_file_cut_anywhere_holds_the_commits_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[tuple[bytes, bytes | None]]], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "journal"
    states = write(path, commits)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    zeros = data.draw(st.booleans()) and cut >= len(MAGIC)
    path.write_bytes(whole[:cut] + bytes(len(whole) - cut) * zeros)
    try:
        found = reopened(path)
    except IntegrityError:
        # Zeros that begin inside a record's header cannot be told from damage, and are refused.
        assert zeros
    else:
        assert found in states
        assert reopened(path) == found


def test_a_cut_loses_only_the_last_commit(tmp_path: Path) -> None:
    states = write(tmp_path / "journal", [[(b"a", b"1")], [(b"b", b"2")], [(b"c", b"3")]])
    data = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(data[:-1])
    assert reopened(tmp_path / "journal") == states[2]


def test_a_journal_goes_on_after_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [[(b"a", b"1")], [(b"b", b"2")]])
    path.write_bytes(path.read_bytes()[:-1])
    journal = Journal(path)
    journal[b"c"] = b"3"
    journal.commit()
    journal.close()
    assert reopened(path) == {b"a": b"1", b"c": b"3"}


@given(st.data())
def test_a_flipped_bit_before_the_last_record_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "journal"
    write(path, [[(b"a", b"1")]])
    first = len(path.read_bytes())
    write(path, [[(b"a", b"1")], [(b"b", b"2")]])
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, first - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(IntegrityError):
        Journal(path)


def test_what_was_not_committed_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal[b"a"] = b"1"
    journal.close()
    assert reopened(tmp_path / "journal") == {}


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"something else altogether")
    with pytest.raises(IntegrityError, match="is not a journal"):
        Journal(tmp_path / "journal")
