"""A key that another process holds: `foedus signer` answers over a Unix socket, one request a connection.

    {"ask": "about"}                                → {"address", "public", "coordinator", "chain", "approve"}
    {"ask": "register", "chain", "value"}           → {"nonce", "signature"}
    {"ask": "reveal", "chain", "registrations"}     → {"nonce"}
    {"ask": "consent", "genesis"}                   → {"signature"}
    {"ask": "admit", "genesis", "proposal"}         → {"signature"}
    {"ask": "show", "federation", "shown", "openings", "memberships"}  → {}
    {"ask": "sign", "chain", "noun", "value"}       → {"signature"}
    {"ask": "salt", "nonce"}                        → {"salt"}
    {"ask": "held"}                                 → {"held"}, manifests; for the signer's own user and root alone
    {"ask": "decide", "manifest", "released"}       → {}; for them alone

Requests and answers are a line of JSON; a refusal is {"refused": reason}, with {"as": error} one of the site's policy.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from core.canonical import Address, Digest, address, from_json, to_json
from core.errors import (
    FoedusError,
    FormatError,
    HeldError,
    IntegrityError,
    NotNowError,
    ObjectionError,
    PolicyError,
    UsageError,
)
from core.founding import Consent
from core.genesis import Genesis
from core.keys import Domain, PublicKey, Signature, Struct, public_key
from core.membership import Admission, Proposal
from core.messages.training import Task
from core.signed import Signed
from core.update import Registration, UpdateManifest

LONGEST_LINE = 16 * 2**20
"""Bytes of a request: the genesis and a record of a thousand members take about 1 MB."""
_PATIENCE_SECONDS = 60.0
_KINDS: Mapping[str, type[FoedusError]] = {
    kind.__name__: kind for kind in (PolicyError, NotNowError, HeldError, UsageError)
}
"""The refusals that are no objection to the coordinator; but for a UsageError their text is for it, too."""


@dataclass(frozen=True)
class RemoteKey:
    """An organisation's key behind the socket of its signer; a `core.signed.SigningKey`."""

    path: Path
    member: Address | None = None
    """The address that it speaks for in a federation where its key has replaced another; else its key's own."""
    derived = False

    @cached_property
    def address(self) -> Address:
        """The Ethereum address in EIP-55 form."""
        return self.member or address(self._ask({"ask": "about"}, "address"))

    @cached_property
    def public(self) -> PublicKey:
        """The public key, for whom something may be sealed."""
        return public_key(self._ask({"ask": "about"}, "public"))

    def check_settings(self, coordinator: Address, chain: Domain) -> None:
        """Raise ObjectionError for a signer that signs for another coordinator, or under another contract."""
        about = self._answer({"ask": "about"})
        got, expected = (about.get("coordinator"), about.get("chain")), (coordinator, chain.to_dict())
        if got != expected:
            raise ObjectionError(f"signer: expected settings for {expected}, got {got}")

    def check_approve(self, approve: str) -> None:
        """Raise PolicyError for a signer that would let updates go which the node's policy holds."""
        if (got := self._ask({"ask": "about"}, "approve")) != approve:
            raise PolicyError(f"approve: expected a signer whose policy says {approve}, as the node's does, got {got}")

    def waiting(self) -> list[UpdateManifest]:
        """The updates that wait at the signer; raises IntegrityError for another user than its own or root."""
        answer = self._answer({"ask": "held"})
        return [UpdateManifest.from_dict(manifest) for manifest in answer.get("held", [])]

    def decide(self, manifest: Digest, *, released: bool) -> None:
        """Have the signer let a held update go, or keep it; raises IntegrityError when it refuses."""
        self._answer({"ask": "decide", "manifest": manifest, "released": released})

    def register(self, plain: Registration, chain: Domain) -> Signed[Registration]:
        """A registration with the signer's commitment to a nonce; raises IntegrityError when the signer refuses."""
        answer = self._answer({"ask": "register", "chain": chain.to_dict(), "value": plain.to_dict()})
        nonce, signature = Digest(str(answer.get("nonce"))), Signature(str(answer.get("signature")))
        return Signed(replace(plain, nonce=nonce), (signature,))

    def reveal(self, registrations: Sequence[Signed[Registration]], chain: Domain) -> Digest:
        """The nonce behind its registration among these; raises IntegrityError when the signer refuses."""
        plain = [signed.to_dict() for signed in registrations]
        return Digest(self._ask({"ask": "reveal", "chain": chain.to_dict(), "registrations": plain}, "nonce"))

    def consent(self, genesis: Genesis) -> Signed[Consent]:
        """Its consent to a genesis; raises IntegrityError when the signer refuses."""
        signature = Signature(self._ask({"ask": "consent", "genesis": genesis.to_dict()}, "signature"))
        return Signed(Consent(genesis.digest, self.address), (signature,))

    def admit(self, genesis: Genesis, proposal: Proposal) -> Signed[Admission]:
        """Its signature under newcomers, or its own joining; raises IntegrityError when the signer refuses."""
        request = {"ask": "admit", "genesis": genesis.to_message(), "proposal": proposal.to_dict()}
        signature = Signature(self._ask(request, "signature"))
        return Signed(Admission(genesis.digest, self.address, proposal.digest), (signature,))

    def show(self, genesis: Genesis, task: Task | None = None) -> None:
        """Show the signer what changed the members of a federation, and the records that a task of it shows.

        Raises IntegrityError when it objects, also to a federation that it has not agreed to.
        """
        shown, openings = (task.shown, task.openings) if task else ((), ())
        self._answer(
            {
                "ask": "show",
                "federation": genesis.digest,
                "shown": [record.to_dict() for record in shown],
                "openings": [opening.to_dict() for opening in openings],
                "memberships": [membership.to_dict() for membership in genesis.memberships],
            }
        )

    def sign_statement(self, domain: Domain, statement: Struct) -> Signature:
        """Have a statement signed; raises IntegrityError when the signer refuses."""
        request = {"ask": "sign", "chain": domain.to_dict(), "noun": statement.struct, "value": statement.to_dict()}
        return Signature(self._ask(request, "signature"))

    def salt_for(self, nonce: Digest) -> bytes:
        """A secret that only the signer can compute from a digest."""
        return bytes.fromhex(self._ask({"ask": "salt", "nonce": nonce}, "salt"))

    def _ask(self, request: dict[str, Any], field: str) -> str:
        """One field of the signer's answer; raises as `_answer` does."""
        return str(self._answer(request).get(field, ""))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The signer's answer; raises UsageError when it does not answer, IntegrityError for a refusal."""
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(_PATIENCE_SECONDS)
                link.connect(str(self.path))
                link.sendall(to_json(request) + b"\n")
                with link.makefile("rb") as answers:
                    answer: dict[str, Any] = from_json(answers.readline(LONGEST_LINE).rstrip(b"\n"), LONGEST_LINE)
        except (OSError, FormatError) as error:
            raise UsageError(f"signer {self.path}: expected an answer, got {error}: is `foedus signer` up?") from error
        if "refused" in answer:
            raise _KINDS.get(answer.get("as", ""), IntegrityError)(f"the signer refuses: {answer['refused']}")
        return answer
