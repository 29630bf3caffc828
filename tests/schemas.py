"""`python -m tests.schemas FOLDER`: write the schemas of what commands print with --json, from recorded outputs.

With $FOEDUS_RECORD set, the tests of the commands record every output there; without, they check it against the schema
that is published. A field is required where every recorded output has it; others may come.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from console.cli import SUMMARIES

PUBLISHED = Path(__file__).parent.parent / "docs" / "reference" / "json"
_GROUPS = ("chain", "deploy", "keys", "members")
_FIELD = re.compile(r"[a-z]+(_[a-z]+)*")
_KEYED = {
    "accepted", "aggregates", "base_loss", "bids", "checked", "counts", "credits", "domains", "epsilon", "figures",
    "final_loss", "losses", "metrics", "options", "organisations", "paid", "policy", "programs", "records", "rejected",
    "scores", "settings", "shares", "spent", "updates", "validation", "versions", "weights",
}  # fmt: skip
"""Fields whose objects are keyed by names that a run chooses, as those of its organisations."""

Json = dict[str, Any]


def command_of(arguments: Sequence[str]) -> str:
    """The full name of the command that is called; "" for none."""
    if not arguments or arguments[0] not in SUMMARIES:
        return ""
    return " ".join(arguments[:2]) if arguments[0] in _GROUPS else arguments[0]


def seen(command: str, output: Json) -> None:
    """Record an output, or check it against the schema of its command."""
    if folder := os.environ.get("FOEDUS_RECORD"):
        path = Path(folder, f"{file_name(command)}l")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(output) + "\n")
    else:
        faults = [f"{fault.json_path}: {fault.message}" for fault in validator(command).iter_errors(output)]
        assert not faults, f"foedus {command} --json: {faults}: record it, and publish its schema"


@cache
def validator(command: str) -> Draft202012Validator:
    """What checks a command's outputs."""
    return Draft202012Validator(json.loads((PUBLISHED / file_name(command)).read_text(encoding="utf-8")))


def file_name(command: str) -> str:
    """The file of a command's schema."""
    return f"{command.replace(' ', '-')}.json"


def inferred(values: Sequence[Any], field: str = "") -> Json:
    """The schema of some values of a field."""
    kinds = sorted({kind_of(value) for value in values})
    schema: Json = {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}
    objects = [value for value in values if isinstance(value, dict)]
    keys = sorted({key for value in objects for key in value})
    if objects and (field in _KEYED or not all(map(_FIELD.fullmatch, keys))):
        schema["additionalProperties"] = inferred([inner for value in objects for inner in value.values()])
    elif objects:
        schema["properties"] = {key: inferred([v[key] for v in objects if key in v], key) for key in keys}
        schema["required"] = [key for key in keys if all(key in value for value in objects)]
    items = [item for value in values if isinstance(value, list) for item in value]
    return schema | ({"items": inferred(items, field)} if items else {})


def kind_of(value: Any) -> str:
    """A value's JSON type; every number is one, since a round figure is no other kind than the next."""
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def schemas(recorded: Path) -> Iterator[tuple[str, Json]]:
    """The schema of each recorded command, by the name of its file."""
    for path in sorted(recorded.glob("*.jsonl")):
        samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        title = f"foedus {path.stem.replace('-', ' ', 1) if path.stem.split('-')[0] in _GROUPS else path.stem} --json"
        yield f"{path.stem}.json", {
            "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **inferred(samples),
        }  # fmt: skip


def main() -> None:
    """Write the schemas of what was recorded."""
    PUBLISHED.mkdir(exist_ok=True)
    for name, schema in schemas(Path(sys.argv[1])):
        (PUBLISHED / name).write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
