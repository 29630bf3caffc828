"""The published schemas: one for every command with --json, closed, and with the fields that are promised.

That commands print what they say is checked wherever a test reads it (tests/schemas.py).
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from assets import schemas
from console.cli import commands
from console.schema import schema_of
from tests.commands import foedus
from tests.schemas import check_printed, fault_of

WITH_JSON = [
    name.replace(" ", "-")
    for name, command in commands()
    if any("--json" in parameter.opts for parameter in command.params)
]
PUBLISHED = json.loads(schemas().read_text(encoding="utf-8"))["$defs"]
# What scripts rely on.
PROMISED = {
    "run": {"run", "status", "rounds", "base_loss", "final_loss", "organisations", "seconds"},
    "verify": {"ok", "checked", "recomputed", "attested", "failures"},
    "attribute": {"tokens", "response", "method", "residual", "seconds"},
    "forget": {"certificate", "label", "aggregate", "seconds"},
    "check": {"ok", "failures"},
    "export": {"path"},
    "serve": {"url"},
    "dossier": {"path"},
    "chain-start": {"url", "addresses"},
    "keys-new": {"address"},
    "sweep": {"trials", "best"},
    "deploy-check": {"nodes"},
    "doctor": {"ok", "checks"},
}


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema of an object within a schema."""
    if isinstance(schema, dict):
        yield from [schema] if "properties" in schema else []
        schema = list(schema.values())
    if isinstance(schema, list):
        for inner in schema:
            yield from objects(inner)


def test_every_command_with_json_has_a_schema_and_no_other_has() -> None:
    assert [name for name in PUBLISHED if name[0].islower()] == WITH_JSON


@pytest.mark.parametrize("command", WITH_JSON)
def test_a_schema_is_printed_whole(command: str) -> None:
    printed = json.loads(foedus("schema", *command.split("-", 1)).out) if "-" in command else schema_of(command)
    Draft202012Validator.check_schema(printed)
    assert printed["$ref"].removeprefix("#/$defs/") == command
    # Nothing fits that is no object, and nothing that lacks what every result has.
    assert fault_of(command, [])
    assert fault_of(command, {})


def test_no_object_of_a_schema_has_fields_that_it_does_not_name() -> None:
    found = list(objects(PUBLISHED))
    assert len(found) > len(WITH_JSON)
    assert all(schema["additionalProperties"] is False and schema["required"] for schema in found)


@pytest.mark.parametrize("command", PROMISED)
def test_the_fields_that_are_promised_are_required(command: str) -> None:
    assert PROMISED[command] <= set(PUBLISHED[command]["required"])


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        ({"ok": True}, "'failures' is a required property"),
        ({"ok": "yes", "failures": []}, "'yes' is not of type 'boolean'"),
        ({"ok": True, "failures": [], "more": 1}, "'more' was unexpected"),
        ({"ok": True, "failures": [], "label": "exact"}, "'aggregate' is a dependency of 'label'"),
    ],
)
def test_what_a_command_prints_otherwise_fails_its_test(result: object, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_printed(["check", "certificate.json", "--json"], json.dumps(result))


def test_a_command_without_json_has_none() -> None:
    done = foedus("schema", "chat")
    assert (done.code, "expected a command with --json: run, sweep, status" in done.error) == (2, True)
