"""What a reply must be before it counts.

Admitting returns the admitted value or raises RejectedError with one reason; nothing of a reply is used before. The
checks run from cheap to dear: who and where, then the bytes, then the numbers.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from core.adapter import AdapterState
from core.canonical import Address, Digest, digest
from core.errors import FoedusError, ForgeryError, FormatError
from core.genesis import Genesis
from core.messages.codec import Reply
from core.signed import Signed
from core.update import Bid, UpdateManifest


class Reason(StrEnum):
    """Why a reply is not admitted."""

    REVOKED = "revoked"
    NOT_CONNECTED = "not-connected"
    NO_REPLY = "no-reply"
    BELOW_QUORUM = "below-quorum"
    CLIENT_ERROR = "client-error"
    ABSTAINED = "abstained"
    OBJECTED = "objected"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    FORGED_SIGNATURE = "forged-signature"
    WRONG_FEDERATION = "wrong-federation"
    WRONG_ROUND = "wrong-round"
    WRONG_PARENT = "wrong-parent"
    REPLAYED_NONCE = "replayed-nonce"
    INFLATED_EXAMPLES = "inflated-examples"
    BID_OUT_OF_RANGE = "bid-out-of-range"
    DIGEST_MISMATCH = "digest-mismatch"
    MISSING_TENSOR = "missing-tensor"
    EXTRA_TENSOR = "extra-tensor"
    WRONG_SHAPE = "wrong-shape"
    WRONG_DTYPE = "wrong-dtype"
    NOT_FINITE = "not-finite"
    NORM_ABOVE_BOUND = "norm-above-bound"


class RejectedError(FoedusError):
    """A reply is not admitted; a client's fault, recorded and never fatal."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Expected:
    """What the server asked of one organisation, and the nonces it has seen from everyone."""

    genesis: Genesis
    organisation: Address
    lane: int
    generation: int
    round: int
    parent: Digest
    shapes: Mapping[str, tuple[int, ...]]
    nonces: Set[Digest]


def admit(reply: Reply, expected: Expected) -> tuple[Signed[UpdateManifest], AdapterState]:
    """The signed manifest and the update, when everything about them holds; raises RejectedError."""
    manifest = _signed(reply.signed, expected)
    _check_place(manifest, expected)
    _check_claims(manifest, expected)
    if (got := digest("adapter", reply.update)) != manifest.update:
        raise RejectedError(Reason.DIGEST_MISMATCH, f"update has digest {got}, its manifest names {manifest.update}")
    update = _parsed(reply.update)
    _check_arrays(update, expected.shapes)
    _check_numbers(update, expected.genesis.norm_bound)
    return reply.signed, update


def _signed(signed: Signed[UpdateManifest], expected: Expected) -> UpdateManifest:
    claimed = signed.value.organisation
    if expected.genesis.organisation(claimed) is None:
        raise RejectedError(Reason.UNKNOWN_KEY, f"{claimed} is not a member")
    if claimed != expected.organisation:
        raise RejectedError(Reason.UNKNOWN_KEY, f"{claimed} answered for {expected.organisation}")
    if signed.value.genesis != expected.genesis.digest:
        raise RejectedError(Reason.WRONG_FEDERATION, f"{signed.value.genesis}, {expected.genesis.digest} wanted")
    try:
        return signed.verified(expected.genesis)
    except ForgeryError as error:
        raise RejectedError(Reason.FORGED_SIGNATURE, str(error)) from error


def _check_place(manifest: UpdateManifest, expected: Expected) -> None:
    place = manifest.lane, manifest.generation, manifest.round
    wanted = expected.lane, expected.generation, expected.round
    if place != wanted:
        raise RejectedError(Reason.WRONG_ROUND, f"lane, generation, round {place}, {wanted} wanted")
    if manifest.parent != expected.parent:
        raise RejectedError(Reason.WRONG_PARENT, f"{manifest.parent}, {expected.parent} wanted")
    if manifest.nonce in expected.nonces:
        raise RejectedError(Reason.REPLAYED_NONCE, f"nonce {manifest.nonce} was used before")


def _check_claims(manifest: UpdateManifest, expected: Expected) -> None:
    member = expected.genesis.organisation(manifest.organisation)
    registered = member.examples if member else 0
    if manifest.examples > registered:
        raise RejectedError(Reason.INFLATED_EXAMPLES, f"{manifest.examples} examples, {registered} registered")
    check_bid(manifest.bid, expected.genesis)


def check_bid(bid: Bid, genesis: Genesis) -> None:
    """Raises RejectedError for a bid that is not in the range that the federation offers."""
    steps, rank = genesis.training.local_steps, genesis.rank
    if not (1 <= bid.steps <= steps and 1 <= bid.rank <= rank):
        got = f"{bid.steps} steps at rank {bid.rank}"
        raise RejectedError(Reason.BID_OUT_OF_RANGE, f"{got}, 1 to {steps} steps and rank 1 to {rank} wanted")


def _parsed(data: memoryview) -> AdapterState:
    try:
        return AdapterState.from_bytes(data)
    except FormatError as error:
        raise RejectedError(Reason.MALFORMED, str(error)) from error


def _check_arrays(update: AdapterState, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(set(shapes) - set(update)):
        raise RejectedError(Reason.MISSING_TENSOR, f"{len(missing)} missing, the first is {missing[0]}")
    if extra := sorted(set(update) - set(shapes)):
        raise RejectedError(Reason.EXTRA_TENSOR, f"{len(extra)} not asked for, the first is {extra[0]}")
    for name, array in update.arrays.items():
        if array.shape != shapes[name]:
            raise RejectedError(Reason.WRONG_SHAPE, f"{name} is {array.shape}, {shapes[name]} wanted")
        if array.dtype != np.float32:
            raise RejectedError(Reason.WRONG_DTYPE, f"{name} is {array.dtype}, float32 wanted")


def _check_numbers(update: AdapterState, bound: float) -> None:
    for name, array in update.arrays.items():
        if not np.isfinite(array).all():
            raise RejectedError(Reason.NOT_FINITE, f"{name} holds NaN or Inf")
    norm = np.sqrt(sum(float(np.vdot(a64, a64)) for a64 in (a.astype(np.float64) for a in update.arrays.values())))
    if norm > bound:
        raise RejectedError(Reason.NORM_ABOVE_BOUND, f"L2 norm {norm:.6g}, at most {bound:g} wanted")
