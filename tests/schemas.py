"""What commands print with --json, against the published schemas: every output that a test reads is checked."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from console.schema import schema_of
from core.canonical import parse_json

_GROUPS = ("chain", "deploy", "keys", "members")


def check_printed(arguments: Sequence[str], out: str) -> None:
    """Check the JSON object that a command printed; nothing where it printed none."""
    if "--json" in arguments and out:
        command = "-".join(arguments[:2] if arguments[0] in _GROUPS else arguments[:1])
        fault = fault_of(command, parse_json(out.encode()))
        assert not fault, f"foedus {command} --json: {fault}: change it, or assets/schemas.json"


def fault_of(command: str, result: Any) -> str:
    """What of a command's result its schema does not allow; "" for nothing."""
    fault = best_match(_validator(command).iter_errors(result))
    return f"{fault.json_path}: {fault.message[:300]}" if fault else ""


@cache
def _validator(command: str) -> Draft202012Validator:
    return Draft202012Validator(schema_of(command))
