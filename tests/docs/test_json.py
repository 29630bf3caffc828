"""The published schemas: one for every command with --json, valid, and with the fields that are promised.

That real outputs are as they say is checked wherever a test of the commands reads one (tests/schemas.py).
"""

import json

import pytest
from jsonschema import Draft202012Validator, ValidationError

from console.cli import commands
from tests.schemas import PUBLISHED, command_of, file_name, inferred, validator

PROMISED = {
    "run": {"run", "status", "rounds", "base_loss", "final_loss", "organisations", "seconds"},
    "verify": {"ok", "checked", "recomputed", "attested", "failures"},
    "attribute": {"tokens", "response", "method", "seconds"},
    "forget": {"certificate", "label", "aggregate", "seconds"},
    "check": {"ok", "failures"},
    "export": {"path"},
    "dossier": {"path"},
    "serve": {"url"},
    "doctor": {"ok", "checks"},
    "keys new": {"address"},
}


def test_every_command_with_json_has_a_schema_and_no_other() -> None:
    named = {file_name(name) for name, command in commands() if any("--json" in p.opts for p in command.params)}
    assert {path.name for path in PUBLISHED.glob("*.json")} == named


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.json")), ids=lambda path: path.stem)
def test_a_schema_is_one(path: object) -> None:
    assert hasattr(path, "read_text")
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"


@pytest.mark.parametrize("command", PROMISED)
def test_promised_fields_are_required(command: str) -> None:
    assert PROMISED[command] <= set(validator(command).schema["required"])


def test_an_output_that_lacks_a_field_or_has_another_type_is_found() -> None:
    with pytest.raises(ValidationError, match="'failures' is a required property"):
        validator("check").validate({"ok": True})
    with pytest.raises(ValidationError, match="is not of type 'boolean'"):
        validator("check").validate({"ok": "yes", "failures": []})


def test_a_schema_follows_from_outputs() -> None:
    schema = inferred([{"a": 1, "losses": {"x": 1.5}}, {"a": None, "losses": {"y": 2}, "b": [{"c": True}]}])
    assert schema["properties"] == {
        "a": {"type": ["null", "number"]},
        "b": {
            "type": "array",
            "items": {"type": "object", "properties": {"c": {"type": "boolean"}}, "required": ["c"]},
        },
        "losses": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    assert schema["required"] == ["a", "losses"]


def test_a_command_is_known_by_its_arguments() -> None:
    assert command_of(["chain", "start", "--json"]) == "chain start"
    assert command_of(["status", "run"]) == "status"
    assert command_of(["no-command"]) == ""
