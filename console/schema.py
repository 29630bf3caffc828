"""`foedus schema`: the JSON Schema of what a command prints with --json."""

import json
from typing import Annotated, Any

import typer

from assets import schemas
from console.options import command_app
from core.canonical import parse_json
from core.errors import UsageError

app = command_app()


@app.command(epilog="Example: foedus schema chain start > chain-start.schema.json")
def schema(command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="As it is called.")]) -> None:
    """Print the JSON Schema (2020-12) of what a command prints with --json."""
    print(json.dumps(schema_of("-".join(command)), indent=1, ensure_ascii=False))


def schema_of(command: str) -> dict[str, Any]:
    """The schema of a command ("chain-start"); raises UsageError for one that prints no JSON."""
    found: dict[str, Any] = parse_json(schemas().read_bytes())
    known = [name for name in found["$defs"] if name[0].islower()]  # those in upper case are what they share
    if command not in known:
        raise UsageError(f"expected a command with --json: {', '.join(known)}, got {command!r:.80}")
    return found | {"title": f"foedus {command.replace('-', ' ')} --json", "$ref": f"#/$defs/{command}"}
