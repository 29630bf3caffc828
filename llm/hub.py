"""Organisations made by dividing one data set: of the Hugging Face Hub, of a folder of files, or saved by `datasets`.

The rows of the train split are divided evenly at random, into mixtures of a column's values that are drawn from a
Dirichlet distribution (Hsu et al., 2019, arXiv 1909.06335), or by a column whose every value is an organisation. Each
part holds out its own dev records; the validation split, where there is one, is the shared validation set.
"""

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from core.errors import ConfigError, DataError
from llm.files import ENDINGS, Row, is_data, is_hidden, read_rows, table_rows
from llm.records import Collection, OrganisationData, checked_names, missing, split, text_of

_CONCENTRATION = 0.5
"""Dirichlet parameter of a value: at 0.5 most parts are dominated by few of the column's values."""
_LEAST_ROWS = 2
"""Of a part: one to train on, one to hold out."""
_LABEL_COLUMNS = ("label", "domain", "category")
_SPLITS = {"validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "test": "test"}
"""Words in the path of a file that is not of the train split, by the split."""


def read_hub(name: str, organisations: int, seed: int, partition: str = "iid") -> Collection:
    """Divide the data set `name` among `organisations` (with ``column=…``, 0 means all its values).

    `name` is a folder, or OWNER/NAME or OWNER/NAME:SUBSET of the Hub. `partition` is ``iid``, ``dirichlet`` or
    ``dirichlet=COLUMN``, or ``column=COLUMN``. Raises ConfigError for another one, DataError when the data set cannot
    be had or divided, or a row is malformed.
    """
    kind, _, column = partition.partition("=")
    if kind not in {"iid", "dirichlet", "column"} or (kind == "column" and not column) or (kind == "iid" and column):
        raise ConfigError(f"partition: expected iid, dirichlet, dirichlet=COLUMN or column=COLUMN, got {partition!r}")
    if kind != "column" and organisations < 1:
        raise ConfigError(f"organisations: expected a number of parts to make of hf:{name}, got {organisations}")
    folder, source = Path(name), f"hf:{name}"
    if folder.is_absolute() and not folder.is_dir():
        raise DataError(f"{source}: expected a folder of data files, got no such folder")
    rows, notes = _read_folder(folder) if folder.is_dir() else (_load(name), [])
    train = rows.get("train")
    if not train:
        raise DataError(f"{source}: expected rows to train on, got the splits {sorted(rows)}")
    if len(train) < _LEAST_ROWS * organisations:
        raise DataError(
            f"{source}: expected at least {_LEAST_ROWS} rows an organisation, got {len(train)} for {organisations}"
        )
    if kind == "column":
        parts = _by_value(train, column, source)
    else:
        parts = _at_random(train, organisations, seed, column if kind == "dirichlet" else None, source)
    data = []
    ordered = sorted(parts)
    for label, part in zip(ordered, checked_names(ordered, f"{source} divided as {partition!r}"), strict=True):
        try:
            data.append(OrganisationData(part, *split([row.record() for row in parts[label]])))
        except DataError as error:
            raise DataError(f"{source} part {label}: {error}") from error
    if len(data) < organisations:
        raise DataError(
            f"{source}: expected {organisations} organisations, got {len(data)} values of column {column!r}"
        )
    shared = tuple(row.record() for row in rows.get("validation", ()))
    return Collection(tuple(data[: organisations or None]), shared, tuple(notes))


def _by_value(rows: Sequence[Row], column: str, source: str) -> dict[str, list[Row]]:
    """The rows of every value of a column; one without a value is nobody's, and refused."""
    parts: dict[str, list[Row]] = {}
    for row, value in zip(rows, _values(rows, column, source), strict=True):
        parts.setdefault(value, []).append(row)
    return parts


def _at_random(
    rows: Sequence[Row], organisations: int, seed: int, column: str | None, source: str
) -> dict[str, list[Row]]:
    """So many parts; with a column (any that holds labels, when it is empty), each of few of its values."""
    generator = np.random.default_rng(seed)
    if column is None:
        parts = [part.tolist() for part in np.array_split(generator.permutation(len(rows)), organisations)]
    else:
        columns = _columns(rows)
        known = [name for name in _LABEL_COLUMNS if name in columns]
        values = _values(rows, column or next(iter(known), " or ".join(_LABEL_COLUMNS)), source)
        parts = _mixtures(values, organisations, generator)
    digits = max(3, len(str(organisations - 1)))
    return {f"organisation-{index:0{digits}d}": [rows[row] for row in part] for index, part in enumerate(parts)}


def _mixtures(values: Sequence[str], count: int, generator: np.random.Generator) -> list[list[int]]:
    """The numbers of the rows of `count` parts of about one size, each with a mixture of values of its own."""
    names, sizes = np.unique(values, return_counts=True)
    # By a value's share of the rows, so that parts are of one size however rare a value is.
    shares = generator.dirichlet(_CONCENTRATION * sizes * len(names) / len(values), size=count)
    shares = np.maximum(shares, np.finfo(float).tiny)  # of a rare value every draw may be 0
    parts: list[list[int]] = [[] for _ in range(count)]
    for name, size, share in zip(names, sizes, shares.T, strict=True):
        found = generator.permutation(np.flatnonzero(np.asarray(values) == name))
        ends = np.rint(np.cumsum(share) / share.sum() * size).astype(int)
        for part, of_value in zip(parts, np.split(found, ends[:-1]), strict=True):
            part.extend(of_value.tolist())
    for part in parts:
        while len(part) < _LEAST_ROWS:
            part.append(max(parts, key=len).pop())
    return parts


def _columns(rows: Sequence[Row]) -> set[str]:
    return {name for row in rows if isinstance(row.value, dict) for name in row.value}


def _values(rows: Sequence[Row], column: str, source: str) -> list[str]:
    """The value of a column in every row, as text."""
    names = _columns(rows)
    if column not in names:
        raise DataError(f"{source}: expected a column {column}, got the columns {sorted(map(str, names))}")
    found = []
    for row in rows:
        value = row.value.get(column) if isinstance(row.value, dict) else None
        if missing(value):
            raise DataError(f"{row.where}: expected a value in column {column!r}, which divides the rows, got none")
        found.append(text_of(row.value, column))
    return found


def _read_folder(folder: Path) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows of a folder's files by split, which a word in their path names, and notes on what is skipped."""
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return _splits(str(folder), "load_from_disk"), []
    rows: dict[str, list[Row]] = {}
    notes = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_dir() or any(is_hidden(folder / part) for part in inner.parts):
            continue
        if is_data(path):
            words = re.split(r"[^a-z]+", str(inner).lower())
            rows.setdefault(next((_SPLITS[w] for w in words if w in _SPLITS), "train"), []).extend(read_rows(path))
        else:
            notes.append(f"{inner}: skipped, not {ENDINGS}")
    return rows, notes


def _load(name: str) -> dict[str, list[Row]]:
    """The rows of a data set of the Hub by split."""
    repository, _, subset = name.partition(":")
    return _splits(name, "load_dataset", repository, subset or None)


def _splits(name: str, loader: str, *arguments: object) -> dict[str, list[Row]]:
    datasets, httpx = import_module("datasets"), import_module("httpx")
    try:
        loaded = getattr(datasets, loader)(*(arguments or (name,)))
        found = loaded if isinstance(loaded, dict) else {"train": loaded}
        return {split: list(table_rows(f"hf:{name} {split}", rows)) for split, rows in found.items()}
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError, httpx.HTTPError) as error:
        raise DataError(f"hf:{name} cannot be loaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The libraries explain themselves in many lines, of which the first two have the reason."""
    return " ".join(str(error).split("\n")[:2]).strip() or type(error).__name__
