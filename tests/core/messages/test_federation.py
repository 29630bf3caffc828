"""The genesis in messages: whole, or by its digest for whoever has it; never another."""

from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ConfigRecord

from core.composition import Composition
from core.errors import ForgeryError, FormatError, UnknownGenesisError
from core.messages import federation
from core.messages.federation import keep
from core.messages.queries import OfferQuery
from core.messages.training import Task
from tests import federation as f
from tests.core.messages.records import with_record
from tests.fuzzing.readers import CHANGE, GENESIS

TASK = Task(GENESIS, f.address("medical"), 0, 0, 1, (), None, None, Composition.of(f.fresh()))


@pytest.fixture(autouse=True)
def _another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federation, "_known", {})


def test_a_node_that_was_shown_a_genesis_is_told_its_digest_alone() -> None:
    assert Task.from_content(TASK.to_content()) == TASK
    short = TASK.to_content(whole=False)
    assert "genesis" not in short
    assert GENESIS.salt.encode() not in short.config_records["task"]["json"]  # type: ignore[operator] # bytes
    assert Task.from_content(short) == TASK
    query = OfferQuery(GENESIS, f.address("medical"), 0, 1, 3, 12.5, {})
    assert OfferQuery.from_content(query.to_content(whole=False)) == query


def test_a_genesis_is_read_once_by_a_process_however_many_it_hosts() -> None:
    first, second = (Task.from_content(TASK.to_content()) for _ in range(2))
    assert first.genesis is second.genesis


def test_another_process_finds_what_the_node_has_kept(tmp_path: Path) -> None:
    short = TASK.to_content(whole=False)
    with pytest.raises(UnknownGenesisError, match="expected it in the message"):
        Task.from_content(short, tmp_path)
    keep(GENESIS, tmp_path)
    assert Task.from_content(short, tmp_path).genesis == GENESIS


def test_of_a_federation_whose_members_changed_the_newest_state_is_kept(tmp_path: Path) -> None:
    keep(GENESIS, tmp_path)
    changed = GENESIS.amended([CHANGE])
    keep(changed, tmp_path)
    assert [path.stem for path in tmp_path.glob("*/*.json")] == [changed.shown_digest]
    assert Task.from_content(replace(TASK, genesis=changed).to_content(whole=False), tmp_path).genesis == changed
    keep(replace(GENESIS, run="another"), tmp_path)
    assert len(list(tmp_path.glob("*/*.json"))) == 2


def test_a_genesis_under_the_digest_of_another_is_refused(tmp_path: Path) -> None:
    other = replace(GENESIS, seed=8)
    for record in (ConfigRecord({"json": other.shown}), ConfigRecord({"json": "text"}), ConfigRecord({})):
        with pytest.raises(FormatError, match="expected the genesis"):
            Task.from_content(with_record(TASK.to_content(), genesis=record))
    keep(GENESIS, tmp_path)
    (path,) = tmp_path.glob("*/*.json")
    path.write_bytes(other.shown)
    with pytest.raises(UnknownGenesisError):
        Task.from_content(TASK.to_content(whole=False), tmp_path)


def test_a_genesis_that_was_read_before_is_not_taken_for_one_that_is_malformed() -> None:
    Task.from_content(TASK.to_content())
    with pytest.raises(FormatError, match="expected the genesis"):
        Task.from_content(with_record(TASK.to_content(), genesis=ConfigRecord({"json": b"{}"})))


def test_a_process_keeps_no_more_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federation, "_MOST_KNOWN", 2)
    for number in range(4):
        Task.from_content(replace(TASK, genesis=replace(GENESIS, run=f"run-{number}")).to_content())
    assert len(federation._known) == 2


def test_a_change_of_members_that_nobody_signed_is_no_genesis() -> None:
    forged = replace(GENESIS)
    forged.__dict__["memberships"] = (replace(CHANGE, value=replace(CHANGE.value, admissions=())),)
    with pytest.raises(ForgeryError):
        Task.from_content(replace(TASK, genesis=forged).to_content())
