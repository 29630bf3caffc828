"""Organisations made by dividing one data set of the Hugging Face Hub (or a local folder that `datasets` reads).

Flower's partitioners divide the train split: evenly at random, unevenly by a Dirichlet draw over a column's values,
or by a column whose every value is an organisation. Each part holds out its own dev records; the validation split,
where there is one, belongs to nobody.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from core.errors import ConfigError, DataError
from llm.data import Collection, OrganisationData, Record, parse_record, split

_CONCENTRATION = 0.5
"""Dirichlet parameter: at 0.5 most parts are dominated by few of the column's values."""
_LABEL_COLUMNS = ("label", "domain", "category")


def read_hub(name: str, organisations: int, seed: int, partition: str = "iid") -> Collection:
    """Divide the data set `name` among `organisations` (with ``column=…``, 0 means all its values).

    `partition` is ``iid``, ``dirichlet`` or ``dirichlet=COLUMN``, or ``column=COLUMN``. Raises ConfigError for
    another one, DataError when the data set cannot be had or divided, or a row is malformed.
    """
    kind, _, column = partition.partition("=")
    if kind not in {"iid", "dirichlet", "column"} or (kind == "column" and not column) or (kind == "iid" and column):
        raise ConfigError(f"partition: got {partition!r}, wanted iid, dirichlet, dirichlet=COLUMN or column=COLUMN")
    if kind != "column" and organisations < 1:
        raise ConfigError(f"organisations: got {organisations}, wanted how many parts to make of hf:{name}")
    try:
        parts, validation = _divide(name, organisations, seed, kind, column)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"hf:{name} cannot be loaded and divided as {partition!r}: {_line(error)}") from error
    data = tuple(_organisation(name, label, rows) for label, rows in sorted(parts.items()))
    if len(data) < organisations:
        raise DataError(f"hf:{name}: got {len(data)} values of column {column!r}, wanted {organisations} organisations")
    notes = tuple(
        f"{part.name}: {len(part.dev)} of {len(part.dev) + len(part.train)} records held out" for part in data
    )
    return Collection(data[: organisations or None], _records(f"hf:{name} validation", validation), notes)


def _divide(
    name: str, organisations: int, seed: int, kind: str, column: str
) -> tuple[dict[str, list[Any]], Iterable[Any]]:
    # Imported here: two seconds that only runs on such data should wait for.
    federated = import_module("flwr_datasets").FederatedDataset
    loaded = federated(dataset=name, partitioners={"train": 1}, seed=seed)
    train = loaded.load_split("train")
    partitioner = _partitioner(train, organisations, seed, kind, column)
    partitioner.dataset = train
    parts = {}
    for index in range(partitioner.num_partitions):
        rows = _plain(partitioner.load_partition(index))
        parts[str(rows[0][column]) if kind == "column" else f"organisation-{index:03d}"] = rows
    splits = import_module("datasets").get_dataset_split_names(name)
    return parts, _plain(loaded.load_split("validation")) if "validation" in splits else ()


def _partitioner(train: Any, organisations: int, seed: int, kind: str, column: str) -> Any:
    partitioners = import_module("flwr_datasets.partitioner")
    if kind == "iid":
        return partitioners.IidPartitioner(organisations)
    columns = [column] if column else [name for name in _LABEL_COLUMNS if name in train.column_names]
    if not columns or columns[0] not in train.column_names:
        raise ValueError(f"it has the columns {train.column_names}, not {column or ' or '.join(_LABEL_COLUMNS)}")
    if kind == "column":
        return partitioners.NaturalIdPartitioner(partition_by=column)
    return partitioners.DirichletPartitioner(organisations, partition_by=columns[0], alpha=_CONCENTRATION, seed=seed)


def _plain(rows: Any) -> list[dict[str, Any]]:
    """Rows as plain objects: no empty fields, class labels by name."""
    names = {field: kind.names for field, kind in rows.features.items() if hasattr(kind, "names")}
    return [
        {field: names[field][value] if field in names else value for field, value in row.items() if value is not None}
        for row in rows
    ]


def _organisation(source: str, name: str, rows: Iterable[Mapping[str, Any]]) -> OrganisationData:
    where = f"hf:{source} part {name}"
    records = _records(where, rows)
    try:
        train, dev = split(records)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return OrganisationData(name, train, dev)


def _records(where: str, rows: Iterable[Mapping[str, Any]]) -> tuple[Record, ...]:
    records = []
    for number, row in enumerate(rows):
        try:
            records.append(parse_record(row))
        except DataError as error:
            raise DataError(f"{where} row {number}: {error}") from error
    return tuple(records)


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
