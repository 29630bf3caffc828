"""ABI and bytecode of the contracts, as `npm run build` left them in assets/contracts."""

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
    runtime: bytes
    immutables: tuple[tuple[int, int], ...]
    """Start and length, in bytes, of what a deployment writes into `runtime`."""

    def is_code(self, code: bytes) -> bool:
        """Whether the code at an address is this contract's, whatever its immutable values."""
        return self._bare(code) == self._bare(self.runtime)

    def _bare(self, code: bytes) -> bytes:
        bare = bytearray(code)
        for start, length in self.immutables:
            bare[start : start + length] = bytes(length)
        return bytes(bare)


@cache
def load(name: str) -> Artefact:
    """The artefact of contract `name`, for example ``PublicLedger``."""
    content = parse_json(files("assets").joinpath("contracts", f"{name}.json").read_bytes())
    runtime = bytes.fromhex(content["runtime"].removeprefix("0x"))
    immutables = tuple((start, length) for start, length in content["immutables"])
    return Artefact(name, content["abi"], content["bytecode"], runtime, immutables)
