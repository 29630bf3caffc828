import json
from pathlib import Path

import pytest

from core.errors import ConfigError, DataError
from llm.hub import read_hub

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A local data set of 120 rows in three languages, with a validation split."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
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
    with pytest.raises(DataError, match="not colour"):
        read_hub(source, 2, seed=1, partition="column=colour")


@pytest.mark.parametrize("partition", ["", "random", "column", "iid=domain"])
def test_an_unknown_partition_is_refused(partition: str) -> None:
    with pytest.raises(ConfigError, match=f"expected iid.*, got {partition!r}"):
        read_hub("anything", 2, seed=1, partition=partition)


def test_how_many_parts_to_make_must_be_said() -> None:
    with pytest.raises(ConfigError, match="got 0"):
        read_hub("anything", 0, seed=1)
