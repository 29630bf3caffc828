"""Records of the organisations: the forms in which people have them, one normal form, and the held-out set.

Decisions:

- Every form of record becomes one: the turns of a prompt and the answer to it. Loss is taken on the answer only.
- A null is a field that is not there, and a number is the text that JSON writes for it: tables and data frames have
  both where text is meant.
- Without a dev file the 5 % of records whose digests are smallest are held out: the choice depends on nothing but
  the records, so no run ever trains on what another run held out, and equal records stay together.

Nothing here needs torch or transformers: commands that only look at data start at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from core.canonical import Digest, digest, raw, to_json
from core.errors import DataError, FormatError
from core.names import Name, check_distinct, organisation_name

FORMS: Final = (
    "{instruction, input, output}, {question, answer}, {prompt, completion}, {text, label}, {text}, {messages} or "
    "{conversations}"
)
_PAIRS: Final = (
    ("instruction", "output"), ("instruction", "response"), ("question", "answer"), ("question", "response"),
    ("prompt", "completion"), ("prompt", "response"), ("text", "label"),
)  # fmt: skip
"""The fields of a prompt and of its answer, in the order in which they are looked for."""
_TURNS: Final = ("messages", "conversations", "conversation")
_ROLES: Final = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
"""What the roles of chat messages and of ShareGPT mean."""
_HELD_OUT = 0.05
_LARGEST_EXACT = 2**53 - 1


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
    where: str = field(default="", compare=False)
    """File and line, or what else names its place; no part of what it says."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of its prompt's turns, in order."""
        return tuple(turn.role for turn in self.prompt)

    @property
    def asks_alone(self) -> bool:
        """Whether its prompt is a question that stands alone: no later turn, and no plain text."""
        return self.roles == ("user",)

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

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 under ``foedus/data-set/v1`` of how many are trained on, and of all records' digests in order."""
        records = (raw(record.digest) for record in (*self.train, *self.dev))
        return digest("data-set", len(self.train).to_bytes(8, "big"), *records)


@dataclass(frozen=True)
class Collection:
    """Everything found under one data source."""

    organisations: tuple[OrganisationData, ...]
    """Sorted by name."""
    validation: tuple[Record, ...]
    """The shared validation set; empty when the source has none."""
    notes: tuple[str, ...]
    """What was skipped, one line each."""


# --- one record ----------------------------------------------------------------------------------------------------


def parse_record(value: Any) -> Record:
    """Normalise one decoded record; raises DataError saying which field is wrong."""
    if not isinstance(value, Mapping):
        raise DataError(f"expected an object with {FORMS}, got {_kind(value)}")
    fields = {name: field for name, field in value.items() if not missing(field)}
    # Data written for earlier versions calls the field slice.
    domain = text_of(fields, "domain", text_of(fields, "slice", ""))
    for name in _TURNS:
        if name in fields:
            return _conversation(name, _turns(name, fields[name]), _system(fields), domain)
    for prompt, answer in _PAIRS:
        if prompt in fields and answer in fields:
            return _pair(fields, prompt, answer, domain)
    if "text" in fields:
        return Record((), _learnt(text_of(fields, "text")), domain)
    nulls = sorted(map(str, value.keys() - fields.keys()))
    raise DataError(
        f"expected {FORMS}, got fields {sorted(map(str, fields))}" + (f" and null in {nulls}" if nulls else "")
    )


def missing(value: object) -> bool:
    """Whether a field is empty as tables and data frames leave one: null, or NaN."""
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - only NaN differs from itself


def text_of(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A field as text, a number as JSON writes it; raises DataError for what is neither, or no Unicode text."""
    value = fields.get(name, default)
    # In Python True is an int, and "True" would be learnt as the answer.
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= _LARGEST_EXACT:  # of a larger one the parser has kept the first digits only
            raise DataError(f"field {name!r}: expected a number up to 2^53 − 1, got {value:g}: write it as text")
        return to_json(value).decode()
    if not isinstance(value, str):
        raise DataError(f"field {name!r}: expected text, got {_kind(value)}")
    check_unicode(f"field {name!r}", value, "mend or remove the record")
    return value


def check_unicode(what: str, text: str, advice: str = "write it in UTF-8") -> None:
    """Raise DataError for half a character, which no tokenizer and no digest takes.

    An escape in JSON can spell one, and Python makes one of each byte of an argument or a line that is no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        got = f"\\u{ord(text[error.start]):04x} alone"
        raise DataError(f"{what}: expected Unicode text, got {got}: {advice}") from error


def _pair(fields: Mapping[str, Any], prompt: str, answer: str, domain: str) -> Record:
    if isinstance(fields[prompt], list):  # TRL's halves of a conversation
        both = [*_turns(prompt, fields[prompt]), *_turns(answer, fields[answer])]
        return _conversation(answer, both, _system(fields), domain)
    asked = [text_of(fields, prompt)]
    if prompt == "instruction":
        asked += [text for name in ("input", "context") if (text := text_of(fields, name, ""))]
    asked = ["\n".join(asked)] if any(asked) else []
    turns = (*_system(fields), *(Message("user", text) for text in asked))
    return Record(turns, _learnt(text_of(fields, answer)), domain)


def _system(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    """The system turn that some forms keep in a field beside the conversation."""
    text = text_of(fields, "system", text_of(fields, "system_prompt", ""))
    return (Message("system", text),) if text else ()


def _learnt(answer: str) -> str:
    if not answer.strip():
        raise DataError("expected an answer to learn, got an empty one")
    return answer


def _turns(name: str, value: Any) -> list[Message]:
    """The turns of a list of {role, content}, or of ShareGPT's {from, value}."""
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise DataError(f"field {name!r}: expected a list of {{role, content}} or {{from, value}}, got {_kind(value)}")
    turns = []
    for number, turn in enumerate(value, start=1):
        try:
            role, content = ("from", "value") if missing(turn.get("role")) else ("role", "content")
            if (said := text_of(turn, role)) not in _ROLES:
                raise DataError(f"expected a role among {', '.join(_ROLES)}, got {said!r}")  # noqa: TRY301 - placed below
            turns.append(Message(_ROLES[said], _content(turn, content)))
        except DataError as error:
            raise DataError(f"field {name!r}, turn {number}: {error}") from error
    return turns


def _content(turn: Mapping[str, Any], name: str) -> str:
    """The text of a turn, which may come in parts {type: text, text}."""
    parts = turn.get(name)
    if not isinstance(parts, list):
        return text_of(turn, name)
    if other := [part for part in parts if not isinstance(part, Mapping) or part.get("type", "text") != "text"]:
        got = f"a part of type {other[0].get('type')!r}" if isinstance(other[0], Mapping) else _kind(other[0])
        raise DataError(f"field {name!r}: expected parts of text, got {got}")
    return "".join(text_of(part, "text") for part in parts)


def _conversation(name: str, turns: list[Message], system: tuple[Message, ...], domain: str) -> Record:
    """The turns up to the assistant's last one, which is the answer."""
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not turns or not turns[-1].content.strip():
        raise DataError(f"field {name!r}: expected a last turn of the assistant with text, got no answer")
    *before, answer = turns
    if before and before[0].role == "system":
        system = ()
    return Record((*system, *before), answer.content, domain)


def _kind(value: object) -> str:
    """What JSON calls the kind of a value."""
    kinds = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", type(None): "null"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "an object")


# --- the records of an organisation --------------------------------------------------------------------------------


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


def checked_names(names: Iterable[str], where: str) -> list[Name]:
    """The names of organisations in a source; raises DataError for what is none, and for two that look alike."""
    try:
        checked = [organisation_name(name) for name in names]
        check_distinct(checked)
    except FormatError as error:
        raise DataError(f"{where}: {error}: rename it") from error
    return checked
