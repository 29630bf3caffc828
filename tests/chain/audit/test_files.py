"""The files of a run: parsed strictly, and each asked for by some check."""

from pathlib import Path

import pytest

from chain.audit.files import (
    ErasureFile,
    Files,
    GenerationFile,
    RecordFile,
    block_of,
    copied_document,
    generation_of,
    is_document,
    is_partial,
    salts_name,
)
from core.canonical import to_json
from core.errors import FormatError
from core.genesis import Genesis
from core.rounds import RoundRecord
from core.storage.run_folder import RunFolder
from tests.behaviours.runs import COORDINATOR, Federation, build

RECORD = "records/L0000-G0000-R00001-A01.json"
BLOCK = "blocks/ab/" + "cd" * 31


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=2)


@pytest.fixture
def files(federation: Federation) -> Files:
    return Files(federation.run)


def test_everything_is_left_until_it_is_asked_for(federation: Federation, files: Files) -> None:
    assert sorted(files.left) == sorted(files.names)
    assert RECORD in files
    files.take(RECORD)
    assert RECORD not in files.left
    assert RECORD in files
    sealed = next(name for name in files.left if name.endswith(".sealed"))
    blob = sealed.removeprefix("artifacts/").removesuffix(".sealed")
    files.take_sealed(blob)
    assert not [name for name in files.left if blob in name]
    assert len(files.left) == len(files.names) - 3
    assert federation.run.folder == files.folder


class Compared(str):
    """A name that counts how often it is compared with others."""

    times = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return str.__eq__(self, other)


def test_what_is_left_is_asked_without_a_search(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_left", dict.fromkeys(map(Compared, files.names)))
    monkeypatch.setattr(Compared, "times", 0)
    assert all(name in files.left for name in files.names)
    assert Compared.times <= len(files.names)


def test_a_store_elsewhere_has_the_same_names(federation: Federation, files: Files, tmp_path: Path) -> None:
    (federation.run.folder / "artifacts").rename(tmp_path / "store")
    elsewhere = RunFolder(federation.run.folder, str(tmp_path / "store"), COORDINATOR)
    assert sorted(Files(elsewhere).names) == sorted(files.names)


def test_a_noun_is_read_from_exactly_its_canonical_form(federation: Federation, files: Files) -> None:
    assert files.read("genesis.json", Genesis.from_dict) == federation.genesis
    (first, _) = federation.run.records()
    assert files.read_signed(RECORD, RoundRecord) == first
    path = federation.run.folder / RECORD
    for content in (path.read_bytes() + b"\n", path.read_bytes().replace(b'"attempt":1', b'"attempt": 1'), b"[]", b""):
        path.write_bytes(content)
        with pytest.raises(FormatError):
            files.read_signed(RECORD, RoundRecord)
    with pytest.raises(FileNotFoundError):
        files.read("nothing.json", Genesis.from_dict)


def test_a_field_that_a_parser_drops_is_refused(federation: Federation, files: Files) -> None:
    path = federation.run.folder / "genesis.json"
    path.write_bytes(to_json({**federation.genesis.to_dict(), "note": ""}))
    with pytest.raises(FormatError, match="genesis: expected its own fields"):
        files.read("genesis.json", lambda data: Genesis.from_dict({k: v for k, v in data.items() if k != "note"}))


def test_a_link_is_not_followed(federation: Federation, files: Files, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes((federation.run.folder / RECORD).read_bytes())
    (federation.run.folder / RECORD).unlink()
    (federation.run.folder / RECORD).symlink_to(tmp_path / "outside")
    with pytest.raises(FormatError, match=f"{RECORD} is a link"):
        files.read_signed(RECORD, RoundRecord)


def test_files_are_sorted_by_what_their_names_claim(tmp_path: Path) -> None:
    names = [
        "records/L0001-G0000-R00001-A01.json",
        "records/L0000-G0000-R00010-A01.json",
        "records/L0000-G0000-R00002-A02.json",
        "records/L0000-G0000-R00002-A01.json.bak",
        "records/notes.txt",
        "generations/L0000-G0002.json",
        "generations/L0000-G0001.json",
        "erasures/L0000-G0001.json",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = Files(RunFolder(tmp_path))
    assert [(f.lane, f.generation, f.round, f.attempt) for f in files.records()] == [
        (0, 0, 2, 2),
        (0, 0, 10, 1),
        (1, 0, 1, 1),
    ]
    assert [f.generation for f in files.generations()] == [1, 2]
    (erasure,) = files.erasures()
    assert erasure == ErasureFile.of(0, 1)
    assert erasure.certificate == "certificates/L0000-G0001.json"
    assert GenerationFile.of(0, 2).name == "generations/L0000-G0002.json"


def test_a_record_s_file_knows_its_round_and_its_salts() -> None:
    file = RecordFile(0, 0, 1, 1, RECORD)
    assert (file.where, file.salts) == ("round 1, lane 0", RECORD.replace("records", "salts"))
    assert salts_name(0, 0, 1, 1) == file.salts


def test_a_round_that_was_recorded_in_the_meantime_is_seen(federation: Federation, files: Files) -> None:
    assert not files.recorded_since(0, 0, 2)
    (federation.run.folder / "records/L0000-G0000-R00003-A01.json").touch()
    assert files.recorded_since(0, 0, 3)


@pytest.mark.parametrize(
    ("name", "document", "partial", "generation", "block", "copied"),
    [
        ("genesis.json", True, False, None, None, None),
        (RECORD, True, False, (0, 0), None, None),
        ("certificates/L0003-G0012.json", True, False, (3, 12), None, None),
        ("anchors.jsonl", False, False, None, None, None),
        ("../genesis.json", False, False, None, None, None),
        (f"artifacts/{BLOCK}.sealed", False, False, None, BLOCK, None),
        (f"artifacts/{BLOCK}.keys", False, False, None, BLOCK, None),
        ("artifacts/blocks/ab/short.keys", False, False, None, None, None),
        ("artifacts/genesis.sealed", False, False, None, None, "genesis.json"),
        ("artifacts/" + RECORD.replace(".json", ".keys"), False, False, (0, 0), None, RECORD),
        ("records/.L0000-G0000-R00001-A01.json.123.partial", False, True, None, None, None),
        ("records/L0000.partial", False, False, None, None, None),
    ],
)
def test_a_name_says_what_a_file_is(
    name: str,
    document: bool,
    partial: bool,
    generation: tuple[int, int] | None,
    block: str | None,
    copied: str | None,
) -> None:
    assert (is_document(name), is_partial(name)) == (document, partial)
    assert (block_of(name), copied_document(name)) == (block, copied)
    if document:
        assert generation_of(name) == generation
