import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from core.errors import ConfigError, DataError
from llm.hub import read_hub

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A local data set of 120 rows in three languages, with a validation split."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"question": f"q{i}", "answer": f"a{i}", "domain": ["de", "en", "fr"][i % 3]} for i in range(126)]
    for split, chosen in (("train", rows[:120]), ("validation", rows[120:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return str(folder)


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "dirichlet=domain", "column=domain"])
def test_every_row_goes_to_one_organisation(source: str, partition: str) -> None:
    found = read_hub(source, 3, seed=1, partition=partition)
    records = [record for part in found.organisations for record in (*part.train, *part.dev)]
    assert len(found.organisations) == 3
    assert len(records) == len(set(records)) == 120
    assert all(part.dev for part in found.organisations)
    assert len(found.validation) == 6


def test_a_column_names_the_organisations_after_its_values(source: str) -> None:
    found = read_hub(source, 0, seed=1, partition="column=domain")
    assert [part.name for part in found.organisations] == ["de", "en", "fr"]
    assert all({record.domain for record in part.train} == {part.name} for part in found.organisations)


def test_the_seed_decides_the_division(source: str) -> None:
    first, again, other = (read_hub(source, 2, seed=seed, partition="dirichlet") for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_more_organisations_than_values_are_refused(source: str) -> None:
    with pytest.raises(DataError, match="expected 4 organisations, got 3 values of column 'domain'"):
        read_hub(source, 4, seed=1, partition="column=domain")


def test_a_column_that_is_not_there_is_refused(source: str) -> None:
    with pytest.raises(DataError, match=r"expected a column colour, got the columns \['answer'"):
        read_hub(source, 2, seed=1, partition="column=colour")


@pytest.mark.parametrize("partition", ["", "random", "column", "iid=domain"])
def test_an_unknown_partition_is_refused(partition: str) -> None:
    with pytest.raises(ConfigError, match=f"expected iid.*, got {partition!r}"):
        read_hub("anything", 2, seed=1, partition=partition)


def test_how_many_parts_to_make_must_be_said() -> None:
    with pytest.raises(ConfigError, match="got 0"):
        read_hub("anything", 0, seed=1)


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def rows(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"question": f"q{i}", "answer": f"a{i}"} | fields for i in range(count)]


def test_a_column_with_a_gap_is_refused_by_file_and_line(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *rows(3, topic="art"), *rows(1, topic=None), *rows(3, topic="law"))
    for partition in ("column=topic", "dirichlet=topic"):
        with pytest.raises(DataError, match=r"train\.jsonl:4: expected a value in column 'topic'.*, got none"):
            read_hub(str(tmp_path), 2, seed=1, partition=partition)


def test_the_numbers_of_a_column_name_organisations(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *rows(3, topic=1), *rows(3, topic=2.0))
    assert [part.name for part in read_hub(str(tmp_path), 0, 1, "column=topic").organisations] == ["1", "2"]


def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *rows(3), {"question": "q", "answer": ["a"]})
    with pytest.raises(DataError, match=r"train\.jsonl:4: field 'answer': expected text, got a list"):
        read_hub(str(tmp_path), 2, seed=1)


def test_rows_of_mixed_types_are_read(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *rows(4), *rows(4, answer=3), *rows(4, context={"any": [1, "2"]}))
    assert len(read_hub(str(tmp_path), 2, seed=1).organisations) == 2


def test_a_first_row_that_is_no_object_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", 5, *rows(4, label="a"))
    with pytest.raises(DataError, match=r"train\.jsonl:1: expected a value in column 'label'"):
        read_hub(str(tmp_path), 2, seed=1, partition="dirichlet")


def test_a_folder_has_its_splits_by_the_words_in_its_paths(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000-of-00002.jsonl", *rows(4))
    write(tmp_path / "data" / "train-00001-of-00002.jsonl", *rows(4, answer="b"))
    write(tmp_path / "data" / "test.jsonl", {"never": "read"})
    write(tmp_path / "val" / "part.jsonl", *rows(2, answer="v"))
    write(tmp_path / ".cache" / "train.jsonl", {"never": "read"})
    write(tmp_path / "README.md", {"never": "read"})
    found = read_hub(str(tmp_path), 2, seed=1)
    assert sum(len(part.train) + len(part.dev) for part in found.organisations) == 8
    assert len(found.validation) == 2
    assert [note.split(":")[0] for note in found.notes] == ["README.md"]


def test_a_data_set_that_was_saved_to_disk_is_read(tmp_path: Path) -> None:
    one = datasets.Dataset.from_list(rows(6, label=1)).cast_column("label", datasets.ClassLabel(names=["law", "art"]))
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "validation": one}).save_to_disk(tmp_path / "both")
    assert len(read_hub(str(tmp_path / "one"), 2, seed=1).organisations) == 2
    found = read_hub(str(tmp_path / "both"), 0, 1, "column=label")
    assert [part.name for part in found.organisations] == ["art"]
    assert len(found.validation) == 6


def test_a_data_set_of_the_hub_is_asked_for_by_name_and_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load(*arguments: object) -> datasets.DatasetDict:
        asked.append(arguments)
        return datasets.DatasetDict({"train": datasets.Dataset.from_list([*rows(4), {"question": "q"}])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"hf:owner/name:main train row 5: .*null in \['answer'\]"):
        read_hub("owner/name:main", 2, seed=1)
    assert asked == [("owner/name", "main")]


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, datasets.exceptions.DatasetGenerationError])
def test_a_data_set_that_cannot_be_loaded_is_one_line(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise error("Config name is missing.\nPick one of ['main'].\nExample of usage: …")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"hf:owner/name cannot be loaded: .*missing\. Pick one of \['main'\]\.$"):
        read_hub("owner/name", 2, seed=1)


def test_a_folder_without_a_train_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", *rows(3))
    with pytest.raises(DataError, match=r"expected rows to train on, got the splits \['test'\]"):
        read_hub(str(tmp_path), 2, seed=1)


def test_a_folder_that_is_not_there_is_no_name_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: expected a folder of data files, got no such folder"):
        read_hub(str(tmp_path / "gone"), 2, seed=1)


@pytest.mark.parametrize("partition", ["iid", "dirichlet=label"])
def test_more_organisations_than_the_rows_allow_are_refused(tmp_path: Path, partition: str) -> None:
    write(tmp_path / "train.jsonl", *rows(60, label=1))
    with pytest.raises(DataError, match="expected at least 2 rows an organisation, got 60 for 31"):
        read_hub(str(tmp_path), 31, seed=1, partition=partition)
    assert len(read_hub(str(tmp_path), 30, seed=1, partition=partition).organisations) == 30


def test_one_data_set_is_divided_among_a_thousand_of_one_size_each_with_few_values(tmp_path: Path) -> None:
    # Nine values in ten rows each, and one that a single row has.
    write(
        tmp_path / "train.jsonl",
        *({"question": f"q{i}", "answer": "a", "label": i % 9 if i else 9} for i in range(20_000)),
    )
    found = read_hub(str(tmp_path), 1000, seed=1, partition="dirichlet=label").organisations
    parts = [[record.prompt[0].content for record in (*part.train, *part.dev)] for part in found]
    assert sorted(name for part in parts for name in part) == sorted(f"q{i}" for i in range(20_000))
    assert min(map(len, parts)) >= 14
    assert max(map(len, parts)) <= 26
    # Of values that all have alike, the commonest of nine would make up a fifth.
    commonest = [Counter(int(name[1:]) % 9 for name in part).most_common(1)[0][1] / len(part) for part in parts]
    assert sum(commonest) / 1000 > 0.35
    assert [part.name for part in found[:2]] == ["organisation-000", "organisation-001"]


def test_dividing_needs_no_library_that_draws_pictures(source: str) -> None:
    program = f"import sys; from llm.hub import read_hub; read_hub({source!r}, 3, 1, 'dirichlet'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "pandas", "datasets"} & set(done.stdout.split())
