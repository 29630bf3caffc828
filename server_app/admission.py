"""Admission: an organisation's reply is checked before any of it is used.

`read_reply` parses what came back, `AdmissionContext.admit` checks an update. Both return the value or raise
RejectedError with one reason. Cheapest checks first: organisation and round, then the bytes, then the numbers.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from flwr.app import Message, RecordDict

from core.adapter import AdapterState
from core.canonical import Address, Digest
from core.errors import FoedusError, ForgeryError, FormatError
from core.genesis import Genesis
from core.messages.refusal import Cause, Refusal
from core.messages.training import Reply
from core.privacy import PrivacyClaims
from core.rejections import Reason
from core.round_key import RoundKey
from core.signed import Signed
from core.update import Bid, UpdateManifest
from core.wire import Packed, most_bytes
from server_app.exchange import last_line

T = TypeVar("T")

_ENTRY_BYTES = 160
"""What a tensor takes in the header besides its name, at most."""
_SLACK = 4096


class RejectedError(FoedusError):
    """A reply is not admitted; a client's fault, recorded and never fatal."""

    def __init__(self, reason: Reason, detail: str, *, lasting: bool = False, held: bool = False) -> None:
        """`lasting`: the same question would get the same answer; `held`: it may get an update after all."""
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.lasting, self.held = reason, detail, lasting, held


@dataclass(frozen=True)
class AdmissionContext:
    """The round that one organisation was asked for, the nonces that any update has used, and what ε was claimed."""

    genesis: Genesis
    organisation: Address
    key: RoundKey
    parent: Digest
    shapes: Mapping[str, tuple[int, ...]]
    nonces: Set[Digest]
    claims: PrivacyClaims

    def admit(self, reply: Reply) -> tuple[Signed[UpdateManifest], Packed]:
        """The signed manifest and the update as it came, when everything about them holds; raises RejectedError."""
        manifest = self.verified(reply.signed)
        self.check_claims(manifest)
        update = Packed(reply.update, self.check_size(reply.update))
        # The digest binds the bytes that travelled, so it is compared before anything in them is parsed.
        if update.digest != manifest.update:
            detail = f"expected update {manifest.update} as in its manifest, got {update.digest}"
            raise RejectedError(Reason.DIGEST_MISMATCH, detail)
        try:
            if update.form != manifest.wire:
                raise RejectedError(Reason.WRONG_WIRE, f"expected an update in {manifest.wire}, got {update.form}")
            # Few bytes may say that they are many numbers: shapes come first.
            self.check_shapes(update.shapes)
            self.check_arrays(update.state)
        except FormatError as error:
            raise RejectedError(Reason.MALFORMED, str(error)) from error
        return reply.signed, update

    def verified(self, signed: Signed[UpdateManifest]) -> UpdateManifest:
        """The manifest, once the organisation that was asked has signed it for this federation."""
        claimed, genesis = signed.value.organisation, self.genesis
        if genesis.organisation(claimed) is None:
            raise RejectedError(Reason.UNKNOWN_KEY, f"{claimed} is not a member")
        if claimed != self.organisation:
            raise RejectedError(Reason.UNKNOWN_KEY, f"expected {self.organisation} to answer, got {claimed}")
        if (got := signed.value.genesis) != genesis.digest:
            raise RejectedError(Reason.WRONG_FEDERATION, f"expected genesis {genesis.digest}, got {got}")
        try:
            return signed.verified(genesis)
        except ForgeryError as error:
            raise RejectedError(Reason.FORGED_SIGNATURE, str(error)) from error

    def check_claims(self, manifest: UpdateManifest) -> None:
        """Round, parent, nonce, number of examples, bid and ε are those that the organisation may claim."""
        if manifest.key != self.key:
            raise RejectedError(Reason.WRONG_ROUND, f"expected {self.key}, got {manifest.key}")
        if manifest.parent != self.parent:
            raise RejectedError(Reason.WRONG_PARENT, f"expected {self.parent}, got {manifest.parent}")
        if manifest.wire != self.genesis.wire:
            raise RejectedError(Reason.WRONG_WIRE, f"expected {self.genesis.wire}, got {manifest.wire}")
        # By nonce and never by signature: a signature has a twin that recovers the same address.
        if manifest.nonce in self.nonces:
            raise RejectedError(Reason.REPLAYED_NONCE, f"nonce {manifest.nonce} was used before")
        registered = self.genesis.examples[manifest.organisation]
        if manifest.examples > registered:
            detail = f"expected at most the {registered} examples registered, got {manifest.examples}"
            raise RejectedError(Reason.INFLATED_EXAMPLES, detail)
        check_bid(manifest.bid, self.genesis)
        if expected := self.claims.expected(manifest):
            raise RejectedError(Reason.EPSILON_OUT_OF_RANGE, f"expected {expected}, got {manifest.epsilon:g}")

    def check_size(self, update: memoryview) -> int:
        """The most bytes of the update's header, once the update is no larger than its tensors can be."""
        header = _SLACK + 2 * sum(len(name) + _ENTRY_BYTES for name in self.shapes)
        # Room for float64, twice float32, and for an odd name, which are refused for what they are.
        most = header + 2 * most_bytes(self.shapes, self.genesis.wire)
        if len(update) > most:
            raise RejectedError(Reason.TOO_LARGE, f"expected an update of at most {most} bytes, got {len(update)}")
        return header

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """The update has exactly the tensors asked for."""
        if missing := sorted(set(self.shapes) - set(shapes)):
            raise RejectedError(Reason.MISSING_TENSOR, f"{len(missing)} missing, the first is {missing[0]}")
        if extra := sorted(set(shapes) - set(self.shapes)):
            raise RejectedError(Reason.EXTRA_TENSOR, f"{len(extra)} not asked for, the first is {extra[0]}")
        for name, shape in shapes.items():
            # Equal, not merely compatible: NumPy would broadcast a single value over a whole layer.
            if shape != self.shapes[name]:
                raise RejectedError(Reason.WRONG_SHAPE, f"{name}: expected {self.shapes[name]}, got {shape}")

    def check_arrays(self, update: AdapterState) -> None:
        """The update is finite float32 within the norm bound."""
        bound = self.genesis.norm_bound
        for name, array in update.arrays.items():
            if array.dtype != np.float32:
                raise RejectedError(Reason.WRONG_DTYPE, f"{name}: expected float32, got {array.dtype}")
            if not np.isfinite(array).all():
                raise RejectedError(Reason.NOT_FINITE, f"{name} holds NaN or Inf")
        if update.norm > bound:
            detail = f"expected an L2 norm of at most {bound:g}, got {update.norm:.6g}"
            raise RejectedError(Reason.NORM_ABOVE_BOUND, detail)


def read_reply(reply: Message | None, parse: Callable[[RecordDict], T], silence: str) -> T:
    """The parsed content of a reply; `parse` may also verify it, `silence` is the detail where there is no reply.

    Raises RejectedError for no reply, an error, a refusal, and content that is malformed or forged.
    """
    if reply is None:
        raise RejectedError(Reason.NO_REPLY, silence)
    if reply.has_error():
        raise RejectedError(Reason.CLIENT_ERROR, last_line(reply.error.reason))
    if refusal := _read(Refusal.from_content, reply.content):
        held, detail = refusal.cause == Cause.HELD, refusal.detail or refusal.cause
        raise RejectedError(Reason(refusal.reason), detail, lasting=refusal.lasting, held=held)
    return _read(parse, reply.content)


def _read(parse: Callable[[RecordDict], T], content: RecordDict) -> T:
    try:
        return parse(content)
    except FormatError as error:
        raise RejectedError(Reason.MALFORMED, str(error)) from error
    except ForgeryError as error:
        raise RejectedError(Reason.FORGED_SIGNATURE, str(error)) from error
    # The boundary: whatever else a foreign reply trips over is that reply's fault, and must not end the round.
    except Exception as error:
        raise RejectedError(Reason.MALFORMED, f"reading it raised {type(error).__name__}") from error


def check_bid(bid: Bid, genesis: Genesis) -> None:
    """Raises RejectedError for a bid that is not in the range that the federation offers."""
    full = genesis.full_bid
    if not bid.within(full):
        got = f"{bid.steps} steps at rank {bid.rank}"
        detail = f"expected 1 to {full.steps} steps and rank 1 to {full.rank}, got {got}"
        raise RejectedError(Reason.BID_OUT_OF_RANGE, detail)
