"""Files of records: JSON Lines, a JSON list, CSV and Parquet, each also under gzip. Every row knows its place.

The name says which (`.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`, `.parquet`, in any case, with or without `.gz`), but
for one thing: lines and a list of JSON are told apart by their first character, since people mix the two names up.
Text is UTF-8, with or without a byte-order mark.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from core.canonical import parse_json
from core.errors import DataError, FormatError
from llm.records import Record, parse_record

LONGEST_LINE: Final = 16 * 2**20
"""The most bytes of one record."""
LARGEST_LIST: Final = 256 * 2**20
"""The most bytes of a JSON list, which is parsed whole."""
_BOM: Final = b"\xef\xbb\xbf"
_SEPARATORS: Final = ",;\t"


class Row(NamedTuple):
    """One decoded row of a data set, and where it stands."""

    where: str
    value: Any

    def record(self) -> Record:
        """The row as a record; raises DataError with its place."""
        try:
            return replace(parse_record(self.value), where=self.where)
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from error


def is_data(path: Path) -> bool:
    """Whether a file's name is that of a data file; hidden ones, and what editors leave behind, are none."""
    return not is_hidden(path) and _unpacked(path).suffix.lower() in _READERS and path.is_file()


def is_hidden(path: Path) -> bool:
    """Whether a name is one that file managers, notebooks and editors keep from view."""
    return path.name.startswith((".", "~"))


def stem(path: Path) -> str:
    """A data file's name without its endings."""
    return _unpacked(path).stem


def read_records(path: Path) -> tuple[Record, ...]:
    """Read one file of records; raises DataError with file and line, or when it is empty."""
    return _records(str(path), read_rows(path))


def parse_records(where: str, data: bytes) -> tuple[Record, ...]:
    """The records of JSON Lines that came from `where`; raises DataError with the line, or when there are none."""
    return _records(where, _json_rows(where, io.BytesIO(data)))


def _records(where: str, rows: Iterable[Row]) -> tuple[Record, ...]:
    if not (records := tuple(row.record() for row in rows)):
        raise DataError(f"{where}: expected records, one JSON object a line, got none")
    return records


def read_rows(path: Path) -> Iterator[Row]:
    """The decoded rows of a file; one without a known ending is read as JSON. Raises DataError with file and line."""
    reader = _READERS.get(_unpacked(path).suffix.lower(), _json_rows)
    try:
        packed = path.suffix.lower() == ".gz"
        with io.BufferedReader(gzip.open(path)) if packed else path.open("rb") as file:
            yield from reader(str(path), file)
    except (OSError, EOFError, zlib.error) as error:
        got = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: expected a file that can be read, got {got}") from error


_NO_LABEL = -1
"""Of `datasets`: nobody has labelled the row."""


def table_rows(where: str, table: Any) -> Iterator[Row]:
    """The rows of a `pyarrow.Table`, or of a `datasets.Dataset`, with the names of class labels for their numbers."""
    features = getattr(table, "features", None)
    if features is None:
        features = import_module("datasets").Features.from_arrow_schema(table.schema)
    names = {field: kind.names for field, kind in features.items() if hasattr(kind, "names")}
    for number, row in enumerate(table.to_pylist() if hasattr(table, "to_pylist") else table, start=1):
        labels = {field: row[field] for field in names if isinstance(row[field], int)}
        for field, label in labels.items():
            if not _NO_LABEL <= label < len(names[field]):
                raise DataError(
                    f"{where} row {number}: expected a label below {len(names[field])} in {field}, got {label}"
                )
            labels[field] = None if label == _NO_LABEL else names[field][label]
        yield Row(f"{where} row {number}", row | labels)


def _unpacked(path: Path) -> Path:
    """The name of a file without the ending that says that it is packed."""
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _json_rows(where: str, file: BinaryIO) -> Iterator[Row]:
    """One object a line, blank lines skipped; or a list of objects."""
    begun = False
    for number, read in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), start=1):
        line = read if number > 1 else _without_bom(where, read)
        if not line.strip():
            continue
        try:
            if not begun and line.lstrip().startswith(b"["):
                values = parse_json(line + file.read(LARGEST_LIST), LARGEST_LIST)
                yield from (Row(f"{where} record {place}", value) for place, value in enumerate(values, start=1))
                return
            value, begun = parse_json(line, LONGEST_LINE), True
        except FormatError as error:
            expected = "expected one object a line, or a list of objects"
            raise DataError(f"{where}:{number}: {expected}, got {error}") from error
        yield Row(f"{where}:{number}", value)


def _without_bom(where: str, line: bytes) -> bytes:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{where}:1: expected UTF-8, got UTF-16: save it as UTF-8")
    return line.removeprefix(_BOM)


def _csv_rows(where: str, file: BinaryIO) -> Iterator[Row]:
    """A line of names, then a row a record; an empty cell is no value. Separated by what the first line has most of."""
    _without_bom(where, file.read(2))
    file.seek(0)
    csv.field_size_limit(LONGEST_LINE)  # Python's own limit is shorter than many an answer
    line = 0
    try:
        with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            separator = max(_SEPARATORS, key=text.readline().count)
            text.seek(0)
            reader = csv.reader(text, delimiter=separator, strict=True)
            names = [name.strip() for name in next(reader, [])]
            if repeated := [name for name in names if name and names.count(name) > 1]:
                raise DataError(f"{where}:1: expected each column once, got {repeated[0]!r} twice")
            for cells in reader:
                line = reader.line_num
                if cells and len(cells) != len(names):
                    got = f"got {len(cells)}: quote what has commas"
                    raise DataError(f"{where}:{line}: expected {len(names)} cells, {got}")
                if any(cells):
                    yield Row(f"{where}:{line}", {name: cell or None for name, cell in zip(names, cells, strict=True)})
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{where}:{line + 1}: expected CSV in UTF-8, got {error}") from error


def _parquet_rows(where: str, file: BinaryIO) -> Iterator[Row]:
    try:
        # Imported here: only such data should wait for it, and a node need not have it.
        arrow = import_module("pyarrow")
        table = import_module("pyarrow.parquet").read_table(file)
    except ModuleNotFoundError as error:
        raise DataError(f"{where}: expected pyarrow, which reads Parquet, got no module {error.name!r}") from error
    except arrow.ArrowException as error:
        raise DataError(f"{where}: expected Parquet, got {str(error).splitlines()[0]}") from error
    yield from table_rows(where, table)


_READERS: Mapping[str, Callable[[str, BinaryIO], Iterator[Row]]] = {
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".parquet": _parquet_rows,
}
ENDINGS: Final = ", ".join(_READERS)
"""The endings of data files, for people."""
