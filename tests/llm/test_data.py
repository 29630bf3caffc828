import json
from pathlib import Path
from typing import Any

import pytest

from core.config import RunConfig
from core.errors import DataError
from llm import data as module
from llm.data import read_data, read_folder, read_published
from llm.records import Collection, Message, Record


def write(path: Path, *records: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def many(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"q{i}", "answer": f"a{i}"} for i in range(start, start + count)]


# --- folders ---------------------------------------------------------------------------------------------------


def test_a_folder_gives_its_organisations_in_order_of_name(tmp_path: Path) -> None:
    write(tmp_path / "beta.jsonl", *many(40))
    write(tmp_path / "alpha" / "train.jsonl", *many(4))
    write(tmp_path / "alpha" / "dev.jsonl", *many(2, start=10))
    write(tmp_path / "alpha" / "base.jsonl", {"never": "read"})
    write(tmp_path / "validation.jsonl", {"question": "v", "answer": "w", "domain": "s"})
    write(tmp_path / "other" / "imdb_train.jsonl", *many(1))
    (tmp_path / "README.md").write_text("words")
    found = read_folder(tmp_path)
    sizes = [(o.name, len(o.train), len(o.dev)) for o in found.organisations]
    assert sizes == [("alpha", 4, 2), ("beta", 38, 2)]
    assert found.validation == (Record((Message("user", "v"),), "w", "s"),)
    assert [note.split(":")[0] for note in found.notes] == ["README.md", "other"]


def test_fewer_organisations_are_the_first_by_name(tmp_path: Path) -> None:
    for name in "cab":
        write(tmp_path / f"{name}.jsonl", *many(2))
    assert [o.name for o in read_folder(tmp_path, 2).organisations] == ["a", "b"]


def test_folders_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing: expected NAME.*, got no such folder"):
        read_folder(tmp_path / "missing")
    with pytest.raises(DataError, match="got no organisation"):
        read_folder(tmp_path)
    write(tmp_path / "a.jsonl", *many(3))
    with pytest.raises(DataError, match=r"expected 2 organisations, got 1 \(a\)"):
        read_folder(tmp_path, 2)
    write(tmp_path / "a" / "train.jsonl", *many(3))
    with pytest.raises(DataError, match=r"expected one file of a, got a/train\.jsonl and a\.jsonl"):
        read_folder(tmp_path)


def test_the_real_data_give_four_domains(real_data: Path) -> None:
    found = read_folder(real_data)
    assert [o.name for o in found.organisations] == ["coding", "financial", "math", "medical"]
    assert {record.domain for record in found.validation} == {"coding", "financial", "math", "medical"}


def test_hidden_files_and_checkpoints_are_no_organisations(tmp_path: Path) -> None:
    write(tmp_path / "clinic.jsonl", *many(3))
    write(tmp_path / "bank" / "train.jsonl", *many(3))
    for hidden in (
        "._clinic.jsonl", ".clinic.jsonl.swp", "~$clinic.csv", ".ipynb_checkpoints/train.jsonl",
        ".ipynb_checkpoints/clinic-checkpoint.jsonl", "bank/.ipynb_checkpoints/train-checkpoint.jsonl",
        "bank/._train.jsonl", ".DS_Store",
    ):  # fmt: skip
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"\x00\x01 no record")
    found = read_folder(tmp_path)
    assert [o.name for o in found.organisations] == ["bank", "clinic"]
    assert "._clinic.jsonl: skipped, it is hidden" in found.notes
    assert ".ipynb_checkpoints: skipped, it is hidden" in found.notes


def test_organisations_may_have_files_of_different_forms(tmp_path: Path) -> None:
    write(tmp_path / "a.JSONL", *many(3))
    (tmp_path / "b.json").write_text(json.dumps(many(3)))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train.csv").write_text("question,answer\nq1,a1\nq2,a2\n")
    (tmp_path / "c" / "dev.csv").write_text("question,answer\nq3,a3\n")
    (tmp_path / "validation.csv").write_text("question,answer,domain\nv,w,s\n")
    found = read_folder(tmp_path)
    assert [(o.name, len(o.train), len(o.dev)) for o in found.organisations] == [("a", 2, 1), ("b", 2, 1), ("c", 2, 1)]
    assert found.validation == (Record((Message("user", "v"),), "w", "s"),)


def test_two_forms_of_one_file_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.jsonl", *many(3))
    write(tmp_path / "a" / "dev.jsonl", *many(1))
    write(tmp_path / "a" / "dev.json", *many(1))
    with pytest.raises(DataError, match=r"a: expected one file dev, got dev\.json and dev\.jsonl"):
        read_folder(tmp_path)
    (tmp_path / "a" / "dev.json").unlink()
    (tmp_path / "a.csv").write_text("question,answer\nq1,a1\n")
    with pytest.raises(DataError, match=r"expected one file of a, got a/train\.jsonl and a\.csv"):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["M\u00fcller", "Mu\u0308ller"])
def test_a_name_that_has_two_unicode_forms_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"{name}.jsonl", *many(3))
    with pytest.raises(DataError, match=r"expected 1 to 64 of A-Z .*: rename it"):
        read_folder(tmp_path)


def test_published_records_are_all_read_and_none_is_held_out(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", *many(1))
    write(tmp_path / "a" / "train.jsonl", *many(3))
    assert {name: len(records) for name, records in read_published(tmp_path).items()} == {"a": 3, "b": 1}
    for folder in (tmp_path / "none", tmp_path / "a"):
        (tmp_path / "a" / "train.jsonl").unlink(missing_ok=True)
        with pytest.raises(DataError, match="got no organisation"):
            read_published(folder)


# --- the source that the settings name --------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("medical", "coding"):
        lines = [json.dumps({"question": f"{name} {i}?", "answer": str(i)}) for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def one(path: Path, answer: str) -> Path:
    path.write_text(json.dumps({"question": "?", "answer": answer}), encoding="utf-8")
    return path


def test_a_folder_s_organisations_in_order_of_name(data: Path) -> None:
    assert [o.name for o in read_data(RunConfig(data=str(data))).organisations] == ["coding", "medical"]
    assert [o.name for o in read_data(RunConfig(data=str(data), organisations=1)).organisations] == ["coding"]


def test_the_shared_validation_set_is_the_settings_then_the_folder_s_then_the_embedded_one(data: Path) -> None:
    embedded = read_data(RunConfig(data=str(data))).validation
    assert {record.domain for record in embedded} == {"coding", "financial", "mathematical", "medical"}
    one(data / "validation.jsonl", "the folder's")
    assert [r.answer for r in read_data(RunConfig(data=str(data))).validation] == ["the folder's"]
    other = one(data / "other.txt", "the setting's")
    config = RunConfig(data=str(data), validation=str(other))
    assert [r.answer for r in read_data(config).validation] == ["the setting's"]


def test_without_data_the_sample_organisations_are_read() -> None:
    assert [o.name for o in read_data(RunConfig()).organisations] == ["coding", "financial", "mathematical", "medical"]


def test_a_name_on_the_hub_is_divided_by_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    validation = (Record((), "shared"),)
    asked: list[object] = []
    monkeypatch.setattr(module, "read_hub", lambda *a: asked.append(a) or Collection((), validation, ()))
    found = read_data(RunConfig(data="hf:owner/name", organisations=3, seed=5, partition="dirichlet"))
    assert asked == [("owner/name", 3, 5, "dirichlet")]
    assert found.validation == validation


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no such folder"):
        read_data(RunConfig(data=str(tmp_path / "gone")))


def test_two_spellings_of_one_name_are_refused_with_one_thing_to_do(tmp_path: Path) -> None:
    for name in ("Clinic", "clinic"):
        write(tmp_path / f"{name}.jsonl", *many(3))
    with pytest.raises(DataError, match=r"^[^\n]*expected [^\n]*got [^\n]*: rename it$") as caught:
        read_folder(tmp_path)
    assert str(caught.value).count("rename") == 1
