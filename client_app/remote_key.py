"""A key that another process holds: `foedus signer` answers over a Unix socket, one request a connection.

    {"ask": "about"}                                       → {"address", "public"}
    {"ask": "show", "genesis", "shown", "openings"}    → {}
    {"ask": "sign", "chain", "noun", "value"}              → {"signature"}
    {"ask": "salt", "nonce"}                               → {"salt"}

Requests and answers are a line of JSON; a refusal is {"refused": reason}.
"""

import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from core.canonical import Address, Digest, address, from_json, to_json
from core.errors import FormatError, IntegrityError, UsageError
from core.genesis import Genesis
from core.keys import Domain, PublicKey, Signature, Struct, public_key
from core.messages.training import Task

LONGEST_LINE = 16 * 2**20
"""Bytes of a request: the genesis and a record of a thousand members take about 1 MB."""
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class RemoteKey:
    """An organisation's key behind the socket of its signer; a `core.signed.SigningKey`."""

    path: Path
    derived = False

    @cached_property
    def address(self) -> Address:
        """The Ethereum address in EIP-55 form."""
        return address(self._ask({"ask": "about"}, "address"))

    @cached_property
    def public(self) -> PublicKey:
        """The public key, for whom something may be sealed."""
        return public_key(self._ask({"ask": "about"}, "public"))

    def show(self, genesis: Genesis, task: Task | None = None) -> None:
        """Show the signer a federation, and the records that a task shows; raises IntegrityError when it objects."""
        shown, openings = (task.shown, task.openings) if task else ((), ())
        self._ask(
            {
                "ask": "show",
                "genesis": genesis.to_dict(),
                "shown": [record.to_dict() for record in shown],
                "openings": [opening.to_dict() for opening in openings],
            }
        )

    def sign_statement(self, domain: Domain, statement: Struct) -> Signature:
        """Have a statement signed; raises IntegrityError when the signer refuses."""
        request = {"ask": "sign", "chain": domain.to_dict(), "noun": statement.struct, "value": statement.to_dict()}
        return Signature(self._ask(request, "signature"))

    def salt_for(self, nonce: Digest) -> bytes:
        """A secret that only the signer can compute from a digest."""
        return bytes.fromhex(self._ask({"ask": "salt", "nonce": nonce}, "salt"))

    def _ask(self, request: dict[str, Any], field: str = "") -> str:
        """One field of the signer's answer; raises UsageError when it does not answer, IntegrityError for a refusal."""
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(_PATIENCE_SECONDS)
                link.connect(str(self.path))
                link.sendall(to_json(request) + b"\n")
                with link.makefile("rb") as answers:
                    answer = from_json(answers.readline(LONGEST_LINE).rstrip(b"\n"), LONGEST_LINE)
        except (OSError, FormatError) as error:
            raise UsageError(f"signer {self.path}: expected an answer, got {error}: is `foedus signer` up?") from error
        if "refused" in answer:
            raise IntegrityError(f"the signer refuses: {answer['refused']}")
        return str(answer.get(field, ""))
