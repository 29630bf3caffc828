"""Organisations made by dividing one data set of the Hugging Face Hub (or a local folder that `datasets` reads).

Flower's partitioners divide the train split: evenly at random, unevenly by a Dirichlet draw over a column's values,
or by a column whose every value is an organisation. Each part holds out its own dev records; the validation split,
where there is one, is the shared validation set.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from core.errors import ConfigError, DataError
from llm.records import Collection, OrganisationData, Record, checked_names, parse_record, split

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
        raise ConfigError(f"partition: expected iid, dirichlet, dirichlet=COLUMN or column=COLUMN, got {partition!r}")
    if kind != "column" and organisations < 1:
        raise ConfigError(f"organisations: expected a number of parts to make of hf:{name}, got {organisations}")
    try:
        parts, validation = _divide(name, organisations, seed, kind, column)
    except (OSError, ValueError, KeyError) as error:
        # The libraries explain themselves in many lines, of which the first has the reason.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"hf:{name} cannot be loaded and divided as {partition!r}: {reason}") from error
    data, notes = [], []
    ordered = sorted(parts)
    for label, part in zip(ordered, checked_names(ordered, f"hf:{name} divided as {partition!r}"), strict=True):
        rows, where = parts[label], f"hf:{name} part {label}"
        records = _records(where, rows)
        try:
            data.append(OrganisationData(part, *split(records)))
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        notes.append(f"{label}: {len(data[-1].dev)} of {len(records)} records held out")
    if len(data) < organisations:
        raise DataError(
            f"hf:{name}: expected {organisations} organisations, got {len(data)} values of column {column!r}"
        )
    shared = _records(f"hf:{name} validation", validation)
    return Collection(tuple(data[: organisations or None]), shared, tuple(notes))


def _divide(
    name: str, organisations: int, seed: int, kind: str, column: str
) -> tuple[dict[str, list[Any]], Iterable[Any]]:
    # Imported here: only runs on such data should wait for these two seconds.
    federated = import_module("flwr_datasets").FederatedDataset
    loaded = federated(dataset=name, partitioners={"train": 1}, seed=seed)
    train = loaded.load_split("train")
    partitioner = _partitioner(train, organisations, seed, kind, column)
    partitioner.dataset = train
    parts = {}
    for index in range(partitioner.num_partitions):
        rows = _plain_rows(partitioner.load_partition(index))
        parts[str(rows[0][column]) if kind == "column" else f"organisation-{index:03d}"] = rows
    splits = import_module("datasets").get_dataset_split_names(name)
    return parts, _plain_rows(loaded.load_split("validation")) if "validation" in splits else ()


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


def _plain_rows(rows: Any) -> list[dict[str, Any]]:
    """Rows as plain objects: no empty fields, class labels by name."""
    # A column that is empty in a row would make parse_record take it for a record of another shape.
    names = {field: kind.names for field, kind in rows.features.items() if hasattr(kind, "names")}
    return [
        {field: names[field][value] if field in names else value for field, value in row.items() if value is not None}
        for row in rows
    ]


def _records(where: str, rows: Iterable[Mapping[str, Any]]) -> tuple[Record, ...]:
    records = []
    for number, row in enumerate(rows):
        try:
            records.append(parse_record(row))
        except DataError as error:
            raise DataError(f"{where} row {number}: {error}") from error
    return tuple(records)
