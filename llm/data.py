"""The data of a run: a folder with a file for each organisation, one data set divided, or the samples.

Nothing here needs torch or transformers.
"""

from dataclasses import replace
from pathlib import Path

import assets
from core.config import RunConfig
from core.errors import DataError
from core.names import Name, listed
from llm.files import ENDINGS, is_data, is_hidden, read_records, stem
from llm.hub import read_hub
from llm.records import Collection, OrganisationData, Record, checked_names, split

VALIDATION = "validation"
"""The name, without its ending, of the file in a folder that belongs to no organisation."""
_EXPECTED = "expected NAME.jsonl or NAME/train.jsonl per organisation"


def read_data(config: RunConfig) -> Collection:
    """The organisations' records and the shared validation set; raises DataError."""
    if config.data.startswith("hf:"):
        name = config.data.removeprefix("hf:")
        collection = read_hub(name, config.organisations, config.seed, config.partition)
    else:
        folder = Path(config.data) if config.data else assets.samples()
        collection = read_folder(folder, config.organisations or None)
    if config.validation:
        return replace(collection, validation=read_records(Path(config.validation)))
    if collection.validation:
        return collection
    # Every round is measured: a source without a validation set gets the embedded one.
    return replace(collection, validation=read_records(assets.samples() / f"{VALIDATION}.jsonl"))


def read_folder(path: Path, organisations: int | None = None) -> Collection:
    """Read one NAME.jsonl, or NAME/train.jsonl with optional NAME/dev.jsonl, per organisation, in order of name.

    Any form of file that llm/files.py knows will do. `organisations` keeps the first so many. Raises DataError for a
    missing or empty folder, a malformed record (with file and line), a name given twice, or fewer organisations than
    asked for.
    """
    if not path.is_dir():
        raise DataError(f"{path}: {_EXPECTED}, got no such folder")
    files, notes = _training_files(path)
    if organisations is not None and len(files) < organisations:
        raise DataError(f"{path}: expected {organisations} organisations, got {len(files)} ({listed(files)})")
    read = []
    for name, file in zip(checked_names(list(files)[:organisations], str(path)), files.values(), strict=False):
        train, dev = read_records(file), None if file.parent == path else _only(file.parent, "dev")
        if dev:
            read.append(OrganisationData(name, train, read_records(dev)))
            continue
        try:
            read.append(OrganisationData(name, *split(train)))
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
    validation = _only(path, VALIDATION)
    return Collection(tuple(read), read_records(validation) if validation else (), tuple(notes))


def read_published(path: Path) -> dict[Name, tuple[Record, ...]]:
    """Every record of each organisation in a folder as `read_folder` takes it; raises DataError. None is held out."""
    files, _ = _training_files(path)
    return {
        name: read_records(file) for name, file in zip(checked_names(files, str(path)), files.values(), strict=True)
    }


def _training_files(path: Path) -> tuple[dict[str, Path], list[str]]:
    """The training file of each organisation in a folder, in order of name, and notes on what is none.

    Raises DataError when there is no organisation, or two files of one.
    """
    files: dict[str, Path] = {}
    notes = []
    for entry in sorted(path.iterdir() if path.is_dir() else ()):
        name, file = entry.name, None
        if is_hidden(entry):
            notes.append(f"{entry.name}: skipped, it is hidden")
            continue
        if entry.is_dir():
            file = _only(entry, "train")
        elif is_data(entry):
            name, file = stem(entry), entry
        if file is None:
            notes.append(f"{entry.name}: skipped, {'it has no train file' if entry.is_dir() else f'not {ENDINGS}'}")
        elif name in files:
            raise DataError(
                f"{path}: expected one file of {name}, got {files[name].relative_to(path)} and {file.relative_to(path)}"
            )
        elif name != VALIDATION or entry.is_dir():
            files[name] = file
    if not files:
        raise DataError(f"{path}: {_EXPECTED}, got no organisation")
    return dict(sorted(files.items())), notes


def _only(folder: Path, name: str) -> Path | None:
    """The data file of this name in a folder, whatever its form; raises DataError when there are several."""
    found = [path for path in sorted(folder.iterdir()) if is_data(path) and stem(path) == name]
    if len(found) > 1:
        raise DataError(f"{folder}: expected one file {name}, got {' and '.join(path.name for path in found)}")
    return found[0] if found else None
