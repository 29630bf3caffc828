"""Records of the organisations: parsed from JSON, read from files and folders, split into training and held-out sets.

Decisions:

- Five shapes of record become one: the turns of a prompt and the answer to it. Loss is taken on the answer only.
- Without a dev.jsonl the 5 % of records whose digests are smallest are held out: the choice depends on nothing but
  the records, so no run ever trains on what another run held out, and equal records stay together.

Nothing here needs torch or transformers: commands that only look at data start at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from core.canonical import Digest, digest, parse_json, to_json
from core.errors import DataError, FormatError
from core.names import Name, check_distinct, organisation_name

VALIDATION = "validation.jsonl"
LONGEST_LINE = 16 * 2**20
"""The most bytes of one record."""
_HELD_OUT = 0.05
_ROLES = ("system", "user", "assistant")
_SHAPES = "{instruction, input, output}, {question, answer}, {text, label}, {text} or {messages}"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Record:
    """The answer that is learnt and the turns before it (none for plain text)."""

    prompt: tuple[Message, ...]
    answer: str
    domain: str = ""
    """The domain of a validation record; empty when it has none."""

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of prompt and answer as canonical JSON under ``foedus/record/v1``: what an erasure knows it by."""
        turns = [{"role": turn.role, "content": turn.content} for turn in self.prompt]
        return digest("record", to_json({"prompt": turns, "answer": self.answer}))


@dataclass(frozen=True)
class OrganisationData:
    """The training and the held-out records of one organisation."""

    name: Name
    train: tuple[Record, ...]
    dev: tuple[Record, ...]


@dataclass(frozen=True)
class Collection:
    """Everything found under one data source."""

    organisations: tuple[OrganisationData, ...]
    """Sorted by name."""
    validation: tuple[Record, ...]
    """The shared validation set; empty when the source has none."""
    notes: tuple[str, ...]
    """What was skipped or split off, one line each."""


# --- records -------------------------------------------------------------------------------------------------------


def parse_record(value: Any) -> Record:
    """Normalise one decoded record; raises DataError saying which field is wrong."""
    if not isinstance(value, Mapping):
        raise DataError(f"expected an object with {_SHAPES}, got {type(value).__name__}")
    # Data written for earlier versions calls the field slice.
    domain = _text(value, "domain", _text(value, "slice", ""))
    if "messages" in value:
        return _conversation(value["messages"], domain)
    if "output" in value:
        instruction, context = _text(value, "instruction"), _text(value, "input", "")
        return _single_turn(f"{instruction}\n{context}" if context else instruction, _text(value, "output"), domain)
    if "answer" in value:
        return _single_turn(_text(value, "question"), _text(value, "answer"), domain)
    if "label" in value:
        label = value["label"]
        # In Python True is an int, and "True" would be learnt as the answer.
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise DataError(f"field 'label': expected a string or an integer, got {type(label).__name__}")
        return _single_turn(_text(value, "text"), _unicode("label", str(label)), domain)
    if "text" in value:
        return _single_turn("", _text(value, "text"), domain)
    raise DataError(f"expected {_SHAPES}, got fields {sorted(value)}")


def _text(value: Mapping[str, Any], field: str, default: str | None = None) -> str:
    text = value.get(field, default)
    if not isinstance(text, str):
        got = type(text).__name__ if field in value else f"fields {sorted(value)}"
        raise DataError(f"field {field!r}: expected a string, got {got}")
    return _unicode(field, text)


def _unicode(field: str, text: str) -> str:
    """The text; an escape in JSON can spell half a character, which no tokenizer and no digest takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        got = f"\\u{ord(text[error.start]):04x} alone"
        raise DataError(f"field {field!r}: expected Unicode text, got {got}: mend or remove the record") from error
    return text


def _single_turn(prompt: str, answer: str, domain: str) -> Record:
    if not answer.strip():
        raise DataError("expected an answer to learn, got an empty one")
    return Record((Message("user", prompt),) if prompt else (), answer, domain)


def _conversation(messages: Any, domain: str) -> Record:
    """The turns up to the assistant's last one, which is the answer."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise DataError(f"field 'messages': expected a list of {{role, content}}, got {type(messages).__name__}")
    turns = [Message(_text(message, "role"), _text(message, "content")) for message in messages]
    if unknown := [turn.role for turn in turns if turn.role not in _ROLES]:
        raise DataError(f"field 'messages': expected a role among {', '.join(_ROLES)}, got {unknown[0]!r}")
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not turns or not turns[-1].content.strip():
        raise DataError("field 'messages': expected a last turn of the assistant with text, got no answer")
    return Record(tuple(turns[:-1]), turns[-1].content, domain)


def split(records: Sequence[Record]) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Split into (train, dev): dev is the 5 % (at least one record) whose digests are smallest.

    Raises DataError when there are not at least two different records.
    """
    # By the canonical digest, not by Python's repr: a field that is renamed or added must not move a split.
    distinct = sorted({record.digest for record in records})
    if len(distinct) < 2:
        raise DataError(f"expected at least 2 different records to hold one out, got {len(distinct)}")
    held_out = set(distinct[: max(1, round(_HELD_OUT * len(distinct)))])
    train = tuple(record for record in records if record.digest not in held_out)
    dev = tuple(record for record in records if record.digest in held_out)
    return train, dev


# --- files ---------------------------------------------------------------------------------------------------------


def read_records(path: Path) -> tuple[Record, ...]:
    """Read one JSON Lines file; blank lines are skipped. Raises DataError with file and line, or when it is empty."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: expected a file that can be read, got {error.strerror}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                records.append(parse_record(parse_json(line, LONGEST_LINE)))
            except (FormatError, DataError) as error:
                raise DataError(f"{path}:{number}: {error}") from error
    if not records:
        raise DataError(f"{path}: expected one JSON object a line, got no records")
    return tuple(records)


def read_folder(path: Path, organisations: int | None = None) -> Collection:
    """Read one NAME.jsonl, or NAME/train.jsonl with optional NAME/dev.jsonl, per organisation, in order of name.

    `organisations` keeps the first so many. Raises DataError for a missing or empty folder, a malformed record
    (with file and line), a name given twice, or fewer organisations than asked for.
    """
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder with NAME.jsonl or NAME/train.jsonl per organisation, got none")
    files, notes = _training_files(path)
    if not files:
        raise DataError(f"{path}: expected NAME.jsonl or NAME/train.jsonl per organisation, got no organisation")
    if organisations is not None and len(files) < organisations:
        raise DataError(f"{path}: expected {organisations} organisations, got {len(files)} ({', '.join(files)})")
    read = []
    for name, file in zip(checked_names(list(files)[:organisations], str(path)), files.values(), strict=False):
        train, dev = read_records(file), file.with_name("dev.jsonl")
        if file.parent != path and dev.is_file():
            read.append(OrganisationData(name, train, read_records(dev)))
            continue
        try:
            read.append(OrganisationData(name, *split(train)))
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        notes.append(f"{name}: no dev.jsonl, {len(read[-1].dev)} of {len(train)} records held out")
    validation = path / VALIDATION
    return Collection(tuple(read), read_records(validation) if validation.exists() else (), tuple(notes))


def read_published(path: Path) -> dict[Name, tuple[Record, ...]]:
    """Every record of each organisation in a folder as `read_folder` takes it; raises DataError. None is held out."""
    files, _ = _training_files(path) if path.is_dir() else ({}, [])
    if not files:
        raise DataError(f"{path}: expected NAME.jsonl or NAME/train.jsonl per organisation, got no organisation")
    return {
        name: read_records(file) for name, file in zip(checked_names(files, str(path)), files.values(), strict=True)
    }


def checked_names(names: Iterable[str], where: str) -> list[Name]:
    """The names of organisations in a source; raises DataError for what is none, and for two that look alike."""
    try:
        checked = [organisation_name(name) for name in names]
        check_distinct(checked)
    except FormatError as error:
        raise DataError(f"{where}: {error}: rename it") from error
    return checked


def _training_files(path: Path) -> tuple[dict[str, Path], list[str]]:
    """The training file of each organisation in a folder, in order of name, and notes on what is none."""
    files: dict[str, Path] = {}
    notes = []
    for entry in sorted(path.iterdir(), key=lambda entry: (entry.stem, entry.name)):
        if entry.is_dir() and (entry / "train.jsonl").is_file():
            name, file = entry.name, entry / "train.jsonl"
        elif entry.is_file() and entry.suffix == ".jsonl" and entry.name != VALIDATION:
            name, file = entry.stem, entry
        else:
            if entry.name != VALIDATION:
                notes.append(f"{entry.name}: skipped, {'it has no train.jsonl' if entry.is_dir() else 'not .jsonl'}")
            continue
        if name in files:
            raise DataError(f"{path}: expected {name}.jsonl or {name}/train.jsonl, got both")
        files[name] = file
    return dict(sorted(files.items())), notes
