"""Admission: one claim for each reason, and nothing of a reply is used before all of them hold."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.adapter import AdapterState
from core.aggregation import RULES
from core.canonical import digest
from core.keys import derive
from core.messages.refusal import Refused
from core.messages.training import Reply
from core.privacy import PrivacyClaims
from core.rejections import Reason
from core.round_key import RoundKey
from core.signed import Signed
from core.update import Bid, UpdateManifest
from core.wire import Packed
from server_app.admission import AdmissionContext, RejectedError
from tests import federation as f
from tests.core.test_keys import high_s_twin

GENESIS = f.genesis()
RULE = RULES[GENESIS.rule]
MEDICAL = f.address("medical")
UPDATE = f.update_of(GENESIS, "medical")
NAME, SHAPE = next(iter(UPDATE.shapes.items()))
CONTEXT = AdmissionContext(
    genesis=GENESIS,
    organisation=MEDICAL,
    key=RoundKey(GENESIS.digest, 0, 0, 1),
    parent=GENESIS.digest,
    shapes=RULE.shapes(RULE.initial(f.fresh()), f.fresh()),
    nonces=frozenset({f.other("seen")}),
    claims=PrivacyClaims(GENESIS),
)


def reply(update: AdapterState | bytes = UPDATE, by: str = "medical", **changes: Any) -> Reply:
    """A reply that is honest but for `changes` to its manifest, signed over them."""
    data = update if isinstance(update, bytes) else update.to_bytes()
    values = {"update": digest("adapter", data), "organisation": MEDICAL, "lane": 0, "examples": 100} | changes
    return Reply(f.manifest(GENESIS, "medical", **values).sign(f.key(by), GENESIS.chain), memoryview(data))


def changed(**arrays: Any) -> Reply:
    """An update with one array changed: NAME under a new value, None to leave it out."""
    kept = {n: a for n, a in ({**UPDATE.arrays, **arrays}).items() if a is not None}
    return reply(AdapterState(kept))


def with_value(value: float) -> Reply:
    array = UPDATE[NAME].copy()
    array.flat[-1] = value
    return changed(**{NAME: array})


def signed_with(make: Callable[[Signed[UpdateManifest]], Signed[UpdateManifest]]) -> Reply:
    honest = reply()
    return replace(honest, signed=make(honest.signed))


def test_an_honest_reply_is_admitted_as_it_is() -> None:
    signed, update = CONTEXT.admit(reply())
    assert signed == reply().signed
    assert (update.state, update.data) == (UPDATE, UPDATE.to_bytes())


def in_form(wire: str) -> AdmissionContext:
    genesis = replace(GENESIS, wire=wire)
    return replace(CONTEXT, genesis=genesis, key=replace(CONTEXT.key, genesis=genesis.digest))


def sent_in(form: str, data: bytes | memoryview, **changes: Any) -> Reply:
    """The reply to a federation of this form with these bytes, signed for as they are."""
    values = {"update": digest("adapter", data), "wire": form, "genesis": in_form(form).genesis.digest} | changes
    manifest = f.manifest(GENESIS, "medical", **values)
    return Reply(manifest.sign(f.key("medical"), GENESIS.chain), memoryview(data))


@pytest.mark.parametrize("wire", ["bf16", "int8", "nf4", "sparse"])
def test_a_compressed_reply_is_admitted_as_the_bytes_that_came(wire: str) -> None:
    packed = Packed.of(UPDATE, wire)
    _, update = in_form(wire).admit(sent_in(wire, packed.data))
    assert update.data == packed.data
    assert update.state == packed.state


def of_shapes(**shapes: tuple[int, int]) -> bytes | memoryview:
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return Packed.of(AdapterState(arrays), "nf4").data


COMPRESSED: dict[str, tuple[Reason, Callable[[], Reply]]] = {
    "the same numbers uncompressed": (Reason.WRONG_WIRE, lambda: sent_in("nf4", UPDATE.to_bytes())),
    "another form": (Reason.WRONG_WIRE, lambda: sent_in("nf4", Packed.of(UPDATE, "int8").data)),
    "another form, signed for as that": (
        Reason.WRONG_WIRE, lambda: sent_in("nf4", Packed.of(UPDATE, "int8").data, wire="int8")
    ),
    "bytes behind": (Reason.MALFORMED, lambda: sent_in("nf4", bytes(Packed.of(UPDATE, "nf4").data) + b"\0")),
    "a scale that is none": (
        Reason.MALFORMED,
        lambda: sent_in("nf4", (data := bytes(Packed.of(UPDATE, "nf4").data))[:-16] + b"\xff\xff" + data[-14:]),
    ),
    "a missing tensor": (Reason.MISSING_TENSOR, lambda: sent_in("nf4", of_shapes(x=(2, 2)))),
    "an extra tensor": (
        Reason.EXTRA_TENSOR, lambda: sent_in("nf4", of_shapes(**dict.fromkeys([*UPDATE, "x"], (1, 1))))
    ),
    "a million times the numbers": (
        Reason.WRONG_SHAPE,
        lambda: sent_in("nf4", many_numbers()),
    ),
    "a large number": (
        Reason.NORM_ABOVE_BOUND,
        lambda: sent_in(
            "nf4", Packed.of(AdapterState({n: a * np.float32(1e6) for n, a in UPDATE.arrays.items()}), "nf4").data
        ),
    ),
}  # fmt: skip


def many_numbers() -> bytes:
    """An update whose header alone says that it is large."""
    data = bytearray(Packed.of(UPDATE, "nf4").data)
    at = data.index(bytes(UPDATE[next(iter(UPDATE))].shape[:1]) + b"\0\0\0")
    data[at : at + 4] = (10**6).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("what", COMPRESSED)
def test_a_compressed_reply_is_rejected_with_its_own_reason(what: str) -> None:
    reason, make = COMPRESSED[what]
    with pytest.raises(RejectedError) as caught:
        in_form("nf4").admit(make())
    assert caught.value.reason is reason
    assert caught.value.detail


def test_shapes_are_compared_before_the_numbers_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packed, "state", property(lambda _: pytest.fail("it was decompressed")))
    with pytest.raises(RejectedError, match="wrong-shape"):
        in_form("nf4").admit(sent_in("nf4", many_numbers()))


REJECTED: dict[str, tuple[Reason, Callable[[], Reply]]] = {
    "a key that is no member's": (
        Reason.UNKNOWN_KEY,
        lambda: signed_with(
            lambda s: replace(s.value, organisation=derive(1, "mallory").address).sign(
                derive(1, "mallory"), GENESIS.chain
            )
        ),
    ),
    "another member answering": (Reason.UNKNOWN_KEY, lambda: reply(by="coding", organisation=f.address("coding"))),
    "an address in another spelling": (
        Reason.UNKNOWN_KEY,
        lambda: reply(organisation=MEDICAL.lower()),
    ),
    "another member's signature": (Reason.FORGED_SIGNATURE, lambda: reply(by="coding")),
    "no signature": (Reason.FORGED_SIGNATURE, lambda: signed_with(lambda s: replace(s, signatures=()))),
    "the upper twin of the signature": (
        Reason.FORGED_SIGNATURE,
        lambda: signed_with(lambda s: replace(s, signatures=(high_s_twin(s.signatures[0]),))),
    ),
    "a signature over something else": (
        Reason.FORGED_SIGNATURE,
        lambda: signed_with(lambda s: replace(s, value=replace(s.value, tokens=1))),
    ),
    "a signature for another chain": (
        Reason.FORGED_SIGNATURE,
        lambda: signed_with(lambda s: s.value.sign(f.key("medical"), replace(GENESIS.chain, chain_id=1))),
    ),
    "a signature for another contract": (
        Reason.FORGED_SIGNATURE,
        lambda: signed_with(
            lambda s: s.value.sign(f.key("medical"), replace(GENESIS.chain, contract=f.address("coding")))
        ),
    ),
    "another federation": (Reason.WRONG_FEDERATION, lambda: reply(genesis=f.genesis(seed=8).digest)),
    "another lane": (Reason.WRONG_ROUND, lambda: reply(lane=1)),
    "another generation": (Reason.WRONG_ROUND, lambda: reply(generation=1)),
    "an earlier round": (Reason.WRONG_ROUND, lambda: reply(round=0)),
    "a later round": (Reason.WRONG_ROUND, lambda: reply(round=2)),
    "another parent": (Reason.WRONG_PARENT, lambda: reply(parent=f.other("parent"))),
    "a form that the genesis does not name": (Reason.WRONG_WIRE, lambda: reply(wire="nf4")),
    "a privacy loss where none is counted": (Reason.EPSILON_OUT_OF_RANGE, lambda: reply(epsilon=1.0)),
    "a nonce that was used": (Reason.REPLAYED_NONCE, lambda: reply(nonce=f.other("seen"))),
    "one example too many": (Reason.INFLATED_EXAMPLES, lambda: reply(examples=101)),
    "a billion examples": (Reason.INFLATED_EXAMPLES, lambda: reply(examples=10**9)),
    "no steps": (Reason.BID_OUT_OF_RANGE, lambda: reply(bid=Bid(0, 2))),
    "too many steps": (Reason.BID_OUT_OF_RANGE, lambda: reply(bid=Bid(26, 2))),
    "no rank": (Reason.BID_OUT_OF_RANGE, lambda: reply(bid=Bid(25, 0))),
    "too much rank": (Reason.BID_OUT_OF_RANGE, lambda: reply(bid=Bid(25, 3))),
    "another update than it names": (
        Reason.DIGEST_MISMATCH,
        lambda: replace(reply(), update=memoryview(f.update_of(GENESIS, "coding").to_bytes())),
    ),
    "a byte more than it names": (
        Reason.DIGEST_MISMATCH,
        lambda: replace(reply(), update=memoryview(UPDATE.to_bytes() + b"\0")),
    ),
    "more bytes than its tensors can have": (Reason.TOO_LARGE, lambda: reply(bytes(10**6))),
    "bytes that are no adapter": (Reason.MALFORMED, lambda: reply(b"anything at all")),
    "no bytes": (Reason.MALFORMED, lambda: reply(b"")),
    "a file with trailing bytes": (Reason.MALFORMED, lambda: reply(UPDATE.to_bytes() + b"\0")),
    "a missing tensor": (Reason.MISSING_TENSOR, lambda: changed(**{NAME: None})),
    "no tensors": (Reason.MISSING_TENSOR, lambda: reply(AdapterState({}))),
    "a misnamed tensor": (Reason.MISSING_TENSOR, lambda: changed(**{NAME: None, NAME.upper(): UPDATE[NAME]})),
    "an extra tensor": (Reason.EXTRA_TENSOR, lambda: changed(extra=UPDATE[NAME])),
    "the factor that is not trained": (
        Reason.EXTRA_TENSOR,
        lambda: changed(**{NAME.replace("_B", "_A"): UPDATE[NAME]}),
    ),
    "a transposed shape": (Reason.WRONG_SHAPE, lambda: changed(**{NAME: UPDATE[NAME].T})),
    "a shape that would broadcast": (Reason.WRONG_SHAPE, lambda: changed(**{NAME: np.ones((1,), np.float32)})),
    "a scalar": (Reason.WRONG_SHAPE, lambda: changed(**{NAME: np.float32(1).reshape(())})),
    "a column that would broadcast": (Reason.WRONG_SHAPE, lambda: changed(**{NAME: UPDATE[NAME][:, :1]})),
    "one dimension more": (Reason.WRONG_SHAPE, lambda: changed(**{NAME: UPDATE[NAME][None]})),
    "half precision": (Reason.WRONG_DTYPE, lambda: changed(**{NAME: UPDATE[NAME].astype(np.float16)})),
    "double precision": (Reason.WRONG_DTYPE, lambda: changed(**{NAME: UPDATE[NAME].astype(np.float64)})),
    "NaN": (Reason.NOT_FINITE, lambda: with_value(float("nan"))),
    "infinity": (Reason.NOT_FINITE, lambda: with_value(float("inf"))),
    "negative infinity": (Reason.NOT_FINITE, lambda: with_value(-float("inf"))),
    "a norm above the bound": (Reason.NORM_ABOVE_BOUND, lambda: with_value(101.0)),
    "a norm that overflows float32": (Reason.NORM_ABOVE_BOUND, lambda: with_value(3e38)),
}


@pytest.mark.parametrize("what", REJECTED)
def test_is_rejected_with_its_own_reason(what: str) -> None:
    reason, make = REJECTED[what]
    with pytest.raises(RejectedError) as caught:
        CONTEXT.admit(make())
    assert caught.value.reason is reason
    assert caught.value.detail


def test_every_reason_that_admission_gives_is_tried_above() -> None:
    given_by_the_strategy = {
        Reason.REVOKED,
        Reason.NOT_CONNECTED,
        Reason.NO_REPLY,
        Reason.BELOW_QUORUM,
        Reason.CLIENT_ERROR,
    }
    given_by_the_organisation = {Reason(refused) for refused in Refused}
    assert {reason for reason, _ in REJECTED.values()} == set(
        Reason
    ) - given_by_the_strategy - given_by_the_organisation


def test_the_norm_is_over_all_arrays_together() -> None:
    norm = float(np.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in UPDATE.arrays.values())))

    def of_bound(bound: float) -> AdmissionContext:
        genesis = replace(GENESIS, norm_bound=bound)
        return replace(CONTEXT, genesis=genesis, key=replace(CONTEXT.key, genesis=genesis.digest))

    bounded, strict = of_bound(norm * (1 + 1e-9)), of_bound(norm * (1 - 1e-9))

    def signed(context: AdmissionContext) -> Reply:
        manifest = replace(reply().signed.value, genesis=context.genesis.digest, parent=CONTEXT.parent)
        return Reply(manifest.sign(f.key("medical"), GENESIS.chain), memoryview(UPDATE.to_bytes()))

    bounded.admit(signed(bounded))
    with pytest.raises(RejectedError, match="norm-above-bound"):
        strict.admit(signed(strict))


def test_fewer_examples_and_a_smaller_bid_are_welcome() -> None:
    CONTEXT.admit(reply(examples=1, bid=Bid(1, 1)))
