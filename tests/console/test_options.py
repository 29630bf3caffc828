"""What commands share: the state folder, runs that can be read, files, contracts."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from console.options import contract_of, read_file, readable_run, state_of, writable_file
from core import keys
from core.canonical import Address
from core.errors import UsageError
from core.storage.state_folder import State
from tests import federation as f


def test_the_state_folder_is_the_option_else_the_environments_else_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FOEDUS_HOME", raising=False)
    assert state_of(None).folder == tmp_path / ".foedus"
    monkeypatch.setenv("FOEDUS_HOME", str(tmp_path / "home"))
    assert state_of(None).folder == tmp_path / "home"
    assert state_of(Path("mine")).folder == tmp_path / "mine"


def test_a_run_of_derived_keys_is_readable_and_a_sealed_one_needs_a_key(tmp_path: Path) -> None:
    owner = keys.create(tmp_path / "coordinator")
    sealed = f.genesis(
        coordinator=owner.address, organisations=tuple(replace(member, derived=False) for member in f.members())
    )
    state = State(tmp_path / "state")
    state.run("open").begin(f.genesis(), f.readers(f.genesis()))
    state.run("sealed").begin(sealed, replace(f.readers(sealed), coordinator=owner.public))
    assert readable_run(state, "open", None).name == "open"
    with pytest.raises(UsageError, match=r"sealed.*--key"):
        readable_run(state, "sealed", None)
    assert readable_run(state, "sealed", tmp_path / "coordinator").key == owner
    with pytest.raises(UsageError, match="'gone'"):
        readable_run(state, "gone", None)


def test_a_file_that_cannot_be_read_is_named_with_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"data")
    assert read_file("proof", tmp_path / "here", "a proof") == b"data"
    with pytest.raises(UsageError, match=f"proof {re.escape(str(tmp_path))}.*expected a proof, got No such file"):
        read_file("proof", tmp_path / "gone", "a proof")


def test_a_file_to_write_has_a_folder_and_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert writable_file(Path("out.json")) == tmp_path / "out.json"
    for path, got in ((tmp_path, "a folder"), (tmp_path / "gone" / "out.json", "no such folder")):
        with pytest.raises(UsageError, match=f"got {got}"):
            writable_file(path)


def test_a_contract_is_an_address() -> None:
    assert contract_of(str(f.CHAIN.contract)) == f.CHAIN.contract == Address(str(f.CHAIN.contract))
    with pytest.raises(UsageError, match="--address"):
        contract_of("0x12")
