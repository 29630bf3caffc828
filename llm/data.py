"""Records of the organisations, from files to packed batches of tokens.

Decisions:

- Five shapes of record become one: the turns of a prompt and the answer to it. Loss is taken on the answer only.
- Prompt and answer are tokenised apart, so the boundary is exact and generation sees the tokens of training.
- Without a dev.jsonl the 5 % of records whose digests are smallest are held out: the choice depends on nothing but
  the records, so no run ever trains on what another run held out, and equal records stay together.
- Several examples share a row, each with positions from zero; the model then lets no token attend across examples.
"""

import hashlib
import json
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jinja2
import torch

from core.canonical import Digest, digest, to_json
from core.errors import DataError

IGNORED = -100
"""Target of a position whose next token is not part of an answer."""

VALIDATION = "validation"
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
    """The domain a validation record belongs to; empty when it has none."""

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of prompt and answer as canonical JSON under ``foedus/record/v1``: what an erasure knows it by."""
        turns = [{"role": turn.role, "content": turn.content} for turn in self.prompt]
        return digest("record", to_json({"prompt": turns, "answer": self.answer}))


@dataclass(frozen=True)
class OrganisationData:
    """What one organisation trains on and what it measures itself on."""

    name: str
    train: tuple[Record, ...]
    dev: tuple[Record, ...]


@dataclass(frozen=True)
class Collection:
    """Everything found under one data source."""

    organisations: tuple[OrganisationData, ...]
    """Sorted by name."""
    validation: tuple[Record, ...]
    """The set nobody owns; empty when the source has none."""
    notes: tuple[str, ...]
    """What was skipped or split off, one line each."""


@dataclass(frozen=True)
class Example:
    """Tokens of one record; those from `prompt_length` on are the answer, its end token included."""

    tokens: tuple[int, ...]
    prompt_length: int

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Batch:
    """Packed rows, each field an int64 tensor of shape (rows, longest row)."""

    tokens: torch.Tensor
    positions: torch.Tensor
    """Restarts at zero where an example begins, and where padding begins."""
    targets: torch.Tensor
    """The next token where that is an answer's, else IGNORED."""
    owners: torch.Tensor
    """Index of the example a position belongs to, -1 for padding."""

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on `device`."""
        return Batch(*(getattr(self, name).to(device) for name in ("tokens", "positions", "targets", "owners")))

    def __len__(self) -> int:
        return int((self.targets != IGNORED).sum())


# --- files -----------------------------------------------------------------------------------------------------


def read_folder(path: Path, organisations: int | None = None) -> Collection:
    """Read one NAME.jsonl, or NAME/train.jsonl with optional NAME/dev.jsonl, per organisation, in order of name.

    `organisations` keeps the first so many. Raises DataError for a missing or empty folder, a malformed record
    (with file and line), a name given twice, or fewer organisations than wanted.
    """
    if not path.is_dir():
        raise DataError(f"{path}: got no such folder, wanted one with NAME.jsonl or NAME/train.jsonl per organisation")
    sources, notes = _sources(path)
    if not sources:
        raise DataError(f"{path}: got no organisation, wanted NAME.jsonl or NAME/train.jsonl")
    if organisations is not None and len(sources) < organisations:
        raise DataError(f"{path}: got {len(sources)} organisations ({', '.join(sources)}), wanted {organisations}")
    found = []
    for name, (train, dev) in list(sources.items())[:organisations]:
        data, note = _organisation(name, train, dev)
        found.append(data)
        notes += [note] if note else []
    validation = path / f"{VALIDATION}.jsonl"
    return Collection(tuple(found), read_records(validation) if validation.exists() else (), tuple(notes))


def read_records(path: Path) -> tuple[Record, ...]:
    """Read one JSON Lines file; blank lines are skipped. Raises DataError with file and line, or when it is empty."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                records.append(parse_record(json.loads(line)))
            except (ValueError, DataError) as error:
                raise DataError(f"{path}:{number}: {error}") from error
    if not records:
        raise DataError(f"{path}: got no records, wanted one JSON object a line")
    return tuple(records)


def parse_record(value: Any) -> Record:
    """Normalise one decoded record; raises DataError saying which field is wrong."""
    if not isinstance(value, Mapping):
        raise DataError(f"got {type(value).__name__}, wanted an object: {_SHAPES}")
    tag = _text(value, "domain", _text(value, "slice", ""))
    if "messages" in value:
        return _conversation(value["messages"], tag)
    if "output" in value:
        instruction, context = _text(value, "instruction"), _text(value, "input", "")
        return _single_turn(f"{instruction}\n{context}" if context else instruction, _text(value, "output"), tag)
    if "answer" in value:
        return _single_turn(_text(value, "question"), _text(value, "answer"), tag)
    if "label" in value:
        return _single_turn(_text(value, "text"), _label(value["label"]), tag)
    if "text" in value:
        return _single_turn("", _text(value, "text"), tag)
    raise DataError(f"got fields {sorted(value)}, wanted {_SHAPES}")


def split(records: Sequence[Record]) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Split into (train, dev): dev is the 5 % (at least one record) whose digests are smallest.

    Raises DataError when there are not at least two different records.
    """
    keys = [hashlib.sha256(repr(record).encode()).digest() for record in records]
    distinct = sorted(set(keys))
    if len(distinct) < 2:
        raise DataError(f"got {len(distinct)} distinct record, wanted at least 2 to hold one out")
    held_out = set(distinct[: max(1, round(_HELD_OUT * len(distinct)))])
    train = tuple(record for record, key in zip(records, keys, strict=True) if key not in held_out)
    dev = tuple(record for record, key in zip(records, keys, strict=True) if key in held_out)
    return train, dev


def _sources(path: Path) -> tuple[dict[str, tuple[Path, Path | None]], list[str]]:
    sources: dict[str, tuple[Path, Path | None]] = {}
    notes = []
    for entry in sorted(path.iterdir(), key=lambda entry: (entry.stem, entry.name)):
        if entry.is_dir() and (entry / "train.jsonl").is_file():
            name, dev = entry.name, entry / "dev.jsonl"
            source = (entry / "train.jsonl", dev if dev.is_file() else None)
        elif entry.is_file() and entry.suffix == ".jsonl" and entry.stem != VALIDATION:
            name, source = entry.stem, (entry, None)
        else:
            if entry.name != f"{VALIDATION}.jsonl":
                notes.append(f"{entry.name}: skipped, {'it has no train.jsonl' if entry.is_dir() else 'not .jsonl'}")
            continue
        if name in sources:
            raise DataError(f"{path}: got both {name}.jsonl and {name}/train.jsonl, wanted one of them")
        sources[name] = source
    return dict(sorted(sources.items())), notes


def _organisation(name: str, train: Path, dev: Path | None) -> tuple[OrganisationData, str]:
    records = read_records(train)
    if dev is not None:
        return OrganisationData(name, records, read_records(dev)), ""
    try:
        kept, held_out = split(records)
    except DataError as error:
        raise DataError(f"{train}: {error}") from error
    return OrganisationData(
        name, kept, held_out
    ), f"{name}: no dev.jsonl, {len(held_out)} of {len(records)} records held out"


def _text(value: Mapping[str, Any], field: str, default: str | None = None) -> str:
    text = value.get(field, default)
    if not isinstance(text, str):
        got = type(text).__name__ if field in value else f"fields {sorted(value)}"
        raise DataError(f"field {field!r}: got {got}, wanted a string")
    return text


def _label(label: Any) -> str:
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise DataError(f"field 'label': got {type(label).__name__}, wanted a string or an integer")
    return str(label)


def _single_turn(prompt: str, answer: str, tag: str) -> Record:
    if not answer.strip():
        raise DataError("got an empty answer, wanted text to learn")
    return Record((Message("user", prompt),) if prompt else (), answer, tag)


def _conversation(messages: Any, tag: str) -> Record:
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise DataError("field 'messages': wanted a list of {role, content}")
    turns = [Message(_text(message, "role"), _text(message, "content")) for message in messages]
    if wrong := [turn.role for turn in turns if turn.role not in _ROLES]:
        raise DataError(f"field 'messages': got role {wrong[0]!r}, wanted one of {', '.join(_ROLES)}")
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not turns or not turns[-1].content.strip():
        raise DataError("field 'messages': got no answer, wanted a last turn of the assistant with text")
    return Record(tuple(turns[:-1]), turns[-1].content, tag)


# --- tokens ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def encode(tokenizer: Any, record: Record, max_length: int) -> Example:
    """Tokenise a record, cut to `max_length` tokens; remembered, for every round comes back to the same records.

    The answer keeps all that three quarters of the row, and what the prompt leaves, can hold; a prompt that is then
    too long loses its middle: its head holds the question, its tail the marker that the answer follows.
    """
    prompt, answer = (_tokens(tokenizer, text) for text in _texts(tokenizer, record))
    room = max(max_length - min(len(prompt), max_length // 4), 1)
    answer = answer[:room]
    prompt = _without_middle(prompt, max_length - len(answer))
    return Example((*prompt, *answer), len(prompt))


def encode_prompt(tokenizer: Any, prompt: str) -> tuple[int, ...]:
    """Return the tokens after which the model answers `prompt`, the same as `encode` puts before an answer."""
    return tuple(_tokens(tokenizer, _prompt_text(tokenizer, Record((Message("user", prompt),), ""))))


def pieces(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds to those before it; joined, the text of all.

    Of a character that several tokens spell, the last has all and the others nothing.
    """
    found, said = [], ""
    for stop in range(1, len(tokens) + 1):
        text = str(tokenizer.decode(tokens[:stop], clean_up_tokenization_spaces=False))
        whole = stop == len(tokens) or not text.endswith("\ufffd")
        found.append(text[len(said) :] if whole else "")
        said = text if whole else said
    return tuple(found)


def pack(examples: Sequence[Example], max_length: int) -> list[tuple[int, ...]]:
    """Put examples into rows of at most `max_length` tokens, best fit in the order given.

    Returns the indices of each row's examples, in the order in which rows were opened.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for index, example in enumerate(examples):
        slot = bisect_left(free, (len(example), -1))
        left, row = free.pop(slot) if slot < len(free) else (max_length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        insort(free, (left - len(example), row))
    return [tuple(row) for row in rows]


def collate(examples: Sequence[Example], rows: Sequence[Sequence[int]]) -> Batch:
    """Lay out `rows` (indices into `examples`) as tensors padded to the longest row."""
    width = max(sum(len(examples[index]) for index in row) for row in rows)
    laid_out = [_lay_out(examples, row, width) for row in rows]
    return Batch(*(torch.tensor(field, dtype=torch.int64) for field in zip(*laid_out, strict=True)))


def _texts(tokenizer: Any, record: Record) -> tuple[str, str]:
    end = tokenizer.eos_token or ""
    if not record.prompt:
        return tokenizer.bos_token or "", record.answer + end
    prompt = _prompt_text(tokenizer, record)
    if not tokenizer.chat_template:
        return prompt, record.answer + end
    full = _chat(tokenizer, (*record.prompt, Message("assistant", record.answer)), answered=True)
    turn = full.removeprefix(prompt).rstrip("\n")
    if full.startswith(prompt) and record.answer.strip() in turn:
        return prompt, turn
    # Some templates write an answered turn differently from an open one: then the answer is closed by hand.
    return prompt, record.answer + end


def _prompt_text(tokenizer: Any, record: Record) -> str:
    if tokenizer.chat_template:
        return _chat(tokenizer, record.prompt, answered=False)
    titles = {"system": "System", "user": "Instruction", "assistant": "Response"}
    turns = "".join(f"### {titles[turn.role]}:\n{turn.content}\n\n" for turn in record.prompt)
    return f"{tokenizer.bos_token or ''}{turns}### Response:\n"


def _chat(tokenizer: Any, messages: Iterable[Message], *, answered: bool) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=not answered)
    except jinja2.TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise DataError(f"the base model's chat template refuses the turns {roles}: {error}") from error
    return str(text)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _without_middle(tokens: list[int], length: int) -> list[int]:
    if len(tokens) <= length:
        return tokens
    head = length // 2
    return tokens[:head] + tokens[len(tokens) - (length - head) :]


def _lay_out(examples: Sequence[Example], row: Sequence[int], width: int) -> tuple[list[int], ...]:
    tokens: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for index in row:
        example = examples[index]
        tokens += example.tokens
        positions += range(len(example))
        targets += _targets(example)
        owners += [index] * len(example)
    padding = width - len(tokens)
    return (
        tokens + [0] * padding,
        positions + list(range(padding)),
        targets + [IGNORED] * padding,
        owners + [-1] * padding,
    )


def _targets(example: Example) -> list[int]:
    first = max(example.prompt_length, 1)
    return [IGNORED] * (first - 1) + [*example.tokens[first:], IGNORED]
