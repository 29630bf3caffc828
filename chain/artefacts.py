"""ABI and creation bytecode of the contracts, as `npm run build` left them in assets/contracts."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Artefact:
    """A compiled contract."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: str


@cache
def load(name: str) -> Artefact:
    """The artefact of contract `name`, for example ``PublicLedger``."""
    content = json.loads(files("assets").joinpath("contracts", f"{name}.json").read_text("utf-8"))
    return Artefact(name, content["abi"], content["bytecode"])
