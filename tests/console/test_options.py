"""What commands share: the state folder, a readable run, and files that are named before anything is computed."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from console import options
from core import keys
from core.canonical import from_json
from core.errors import FormatError, UsageError
from core.genesis import Genesis
from core.storage.state_folder import State
from tests.behaviours.runs import COORDINATOR, Lies, found


def test_the_state_folder_is_the_option_the_variable_or_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FOEDUS_HOME", raising=False)
    assert options.state_of(None).folder == tmp_path / ".foedus"
    monkeypatch.setenv("FOEDUS_HOME", "~/elsewhere")
    assert options.state_of(None).folder == Path.home() / "elsewhere"
    assert options.state_of(Path("own")).folder == tmp_path / "own"


def with_own_keys(genesis: Genesis) -> Genesis:
    """The same, of organisations whose keys nobody can derive, nor the coordinator's."""
    members = tuple(replace(member, derived=False) for member in genesis.organisations)
    return replace(genesis, organisations=members, seed=genesis.seed + 1)


def test_a_run_of_derived_keys_is_read_without_one(tmp_path: Path) -> None:
    found(tmp_path / "runs" / "open")
    assert options.readable_run(State(tmp_path), "", None).name == "open"


def test_a_sealed_run_is_read_with_a_reader_s_key_alone(tmp_path: Path) -> None:
    found(tmp_path / "runs" / "sealed", lies=Lies(genesis=with_own_keys))
    state, path = State(tmp_path), tmp_path / "coordinator.key"
    with pytest.raises(UsageError, match=r"sealed.*--key"):
        options.readable_run(state, "sealed", None)
    path.write_text(COORDINATOR.secret.hex() + "\n")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert options.readable_run(state, "sealed", path).key == keys.read(path)


def test_a_run_goes_on_with_the_erasure_that_is_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOEDUS_HOME", str(tmp_path))
    for name, lies, words in (
        ("open", Lies(), "--organisation coding --method replay"),
        ("sealed", Lies(genesis=with_own_keys), "--request FILE"),
    ):
        federation, state = found(tmp_path / "runs" / name, lies=lies), State(tmp_path)
        assert options.resume_command(state, name) == f"foedus run --resume {name}"
        federation.fork(0, 0, without="coding")
        assert options.resume_command(state, name) == f"foedus forget {words} {name}"


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    found(tmp_path / "runs" / "one")
    with pytest.raises(UsageError, match="another"):
        options.readable_run(State(tmp_path), "another", None)


def test_a_file_to_read_is_named_with_what_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert options.read_file("proof", tmp_path / "file", "a file of `foedus proof`") == b"content"
    for missing in (tmp_path / "other", tmp_path):
        with pytest.raises(UsageError, match=f"proof {missing}: expected a file of `foedus proof`, got"):
            options.read_file("proof", missing, "a file of `foedus proof`")


def test_a_file_that_is_malformed_is_named(tmp_path: Path) -> None:
    (tmp_path / "kit").write_bytes(b'{"a" : 1}')
    with pytest.raises(FormatError, match=f"^kit {tmp_path / 'kit'}: JSON is not in canonical form"):
        options.parse_file("kit", tmp_path / "kit", "a kit", from_json)


def test_a_file_to_write_has_a_folder_and_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert options.writable_file(Path("page.html")) == tmp_path / "page.html"
    for path, got in ((tmp_path, "a folder"), (tmp_path / "no" / "page.html", "no such folder")):
        with pytest.raises(UsageError, match=f"{path}: expected a file to write, got {got}"):
            options.writable_file(path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="expected a file of its own to write, got one that another option names"):
        options.writable_file(tmp_path / "link" / "key", None, Path("key"))


def test_a_contract_is_an_address() -> None:
    address = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    assert options.contract_of(address) == address
    for other in ("", "0x12", "ledger"):
        with pytest.raises(UsageError, match="--address"):
            options.contract_of(other)


def test_a_file_to_check_has_a_greatest_size(tmp_path: Path) -> None:
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UsageError, match=r"evidence .*huge\.json: expected a file of at most \d+ bytes, got 1\d{12}"):
        options.read_file("evidence", tmp_path / "huge.json", "a bundle")
