"""Admission: an organisation's reply is checked before any of it is used.

`read_reply` parses what came back, `admit` checks an update. Both return the value or raise RejectedError with one
reason. Cheapest checks first: who and which round, then the bytes, then the numbers.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from flwr.app import Message, RecordDict

from core.adapter import AdapterState
from core.canonical import Address, Digest, digest
from core.errors import FoedusError, ForgeryError, FormatError
from core.genesis import Genesis
from core.messages.refusal import Refusal
from core.messages.training import Reply
from core.rejections import Reason
from core.round_key import RoundKey
from core.signed import Signed
from core.update import Bid, UpdateManifest
from server_app.exchange import last_line

T = TypeVar("T")


class RejectedError(FoedusError):
    """A reply is not admitted; a client's fault, recorded and never fatal."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class AdmissionContext:
    """The round that one organisation was asked for, and the nonces that any update has used."""

    genesis: Genesis
    organisation: Address
    key: RoundKey
    parent: Digest
    shapes: Mapping[str, tuple[int, ...]]
    nonces: Set[Digest]


def read_reply(reply: Message | None, parse: Callable[[RecordDict], T], silence: str) -> T:
    """The parsed content of a reply; `parse` may also verify it, `silence` says what no reply means.

    Raises RejectedError for no reply, an error, a refusal, and what `parse` refuses.
    """
    if reply is None:
        raise RejectedError(Reason.NO_REPLY, silence)
    if reply.has_error():
        raise RejectedError(Reason.CLIENT_ERROR, last_line(reply.error.reason))
    try:
        if refusal := Refusal.from_content(reply.content):
            raise RejectedError(Reason(refusal.reason), refusal.detail)
        return parse(reply.content)
    except FormatError as error:
        raise RejectedError(Reason.MALFORMED, str(error)) from error
    except ForgeryError as error:
        raise RejectedError(Reason.FORGED_SIGNATURE, str(error)) from error


def admit(reply: Reply, context: AdmissionContext) -> tuple[Signed[UpdateManifest], AdapterState]:
    """The signed manifest and the update, when everything about them holds; raises RejectedError."""
    manifest = _verified_manifest(reply.signed, context)
    _check_claims(manifest, context)
    if (got := digest("adapter", reply.update)) != manifest.update:
        raise RejectedError(Reason.DIGEST_MISMATCH, f"expected update {manifest.update} as in its manifest, got {got}")
    try:
        update = AdapterState.from_bytes(reply.update)
    except FormatError as error:
        raise RejectedError(Reason.MALFORMED, str(error)) from error
    _check_arrays(update, context.shapes)
    norm = np.sqrt(sum(float(np.vdot(a64, a64)) for a64 in (a.astype(np.float64) for a in update.arrays.values())))
    if norm > context.genesis.norm_bound:
        detail = f"expected an L2 norm of at most {context.genesis.norm_bound:g}, got {norm:.6g}"
        raise RejectedError(Reason.NORM_ABOVE_BOUND, detail)
    return reply.signed, update


def check_bid(bid: Bid, genesis: Genesis) -> None:
    """Raises RejectedError for a bid that is not in the range that the federation offers."""
    steps, rank = genesis.training.local_steps, genesis.rank
    if not (1 <= bid.steps <= steps and 1 <= bid.rank <= rank):
        got = f"{bid.steps} steps at rank {bid.rank}"
        raise RejectedError(Reason.BID_OUT_OF_RANGE, f"expected 1 to {steps} steps and rank 1 to {rank}, got {got}")


def _verified_manifest(signed: Signed[UpdateManifest], context: AdmissionContext) -> UpdateManifest:
    """The manifest, once the organisation that was asked has signed it for this federation."""
    claimed, genesis = signed.value.organisation, context.genesis
    if genesis.organisation(claimed) is None:
        raise RejectedError(Reason.UNKNOWN_KEY, f"{claimed} is not a member")
    if claimed != context.organisation:
        raise RejectedError(Reason.UNKNOWN_KEY, f"expected {context.organisation} to answer, got {claimed}")
    if (got := signed.value.genesis) != genesis.digest:
        raise RejectedError(Reason.WRONG_FEDERATION, f"expected genesis {genesis.digest}, got {got}")
    try:
        return signed.verified(genesis)
    except ForgeryError as error:
        raise RejectedError(Reason.FORGED_SIGNATURE, str(error)) from error


def _check_claims(manifest: UpdateManifest, context: AdmissionContext) -> None:
    """Round, parent, nonce, number of examples and bid are those that the organisation may claim."""
    if manifest.key != context.key:
        raise RejectedError(Reason.WRONG_ROUND, f"expected {context.key}, got {manifest.key}")
    if manifest.parent != context.parent:
        raise RejectedError(Reason.WRONG_PARENT, f"expected {context.parent}, got {manifest.parent}")
    if manifest.nonce in context.nonces:
        raise RejectedError(Reason.REPLAYED_NONCE, f"nonce {manifest.nonce} was used before")
    registered = context.genesis.examples[manifest.organisation]
    if manifest.examples > registered:
        detail = f"expected at most the {registered} examples registered, got {manifest.examples}"
        raise RejectedError(Reason.INFLATED_EXAMPLES, detail)
    check_bid(manifest.bid, context.genesis)


def _check_arrays(update: AdapterState, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """The update has exactly these tensors, as finite float32."""
    if missing := sorted(set(shapes) - set(update)):
        raise RejectedError(Reason.MISSING_TENSOR, f"{len(missing)} missing, the first is {missing[0]}")
    if extra := sorted(set(update) - set(shapes)):
        raise RejectedError(Reason.EXTRA_TENSOR, f"{len(extra)} not asked for, the first is {extra[0]}")
    for name, array in update.arrays.items():
        if array.shape != shapes[name]:
            raise RejectedError(Reason.WRONG_SHAPE, f"{name}: expected {shapes[name]}, got {array.shape}")
        if array.dtype != np.float32:
            raise RejectedError(Reason.WRONG_DTYPE, f"{name}: expected float32, got {array.dtype}")
        if not np.isfinite(array).all():
            raise RejectedError(Reason.NOT_FINITE, f"{name} holds NaN or Inf")
