"""ABI and creation bytecode of the contracts, as `npm run build` left them in assets/contracts."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from core.canonical import parse_json


@dataclass(frozen=True)
class Artefact:
    """A compiled contract."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: str


@cache
def load(name: str) -> Artefact:
    """The artefact of contract `name`, for example ``PublicLedger``."""
    content = parse_json(files("assets").joinpath("contracts", f"{name}.json").read_bytes())
    return Artefact(name, content["abi"], content["bytecode"])
