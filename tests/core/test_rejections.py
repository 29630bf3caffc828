"""Reasons of rejections are words of signed records: a reason that was given once keeps its spelling."""

from core.rejections import Reason

SPELT = {
    "revoked", "not-connected", "no-reply", "below-quorum", "client-error", "abstained", "objected", "malformed",
    "unknown-key", "forged-signature", "wrong-federation", "wrong-round", "wrong-parent", "replayed-nonce",
    "inflated-examples", "bid-out-of-range", "digest-mismatch", "missing-tensor", "extra-tensor", "wrong-shape",
    "wrong-dtype", "not-finite", "norm-above-bound",
}  # fmt: skip


def test_no_reason_is_spelt_anew() -> None:
    assert {str(reason) for reason in Reason} >= SPELT


def test_a_reason_is_found_by_its_spelling_and_written_as_such() -> None:
    for text in SPELT:
        assert Reason(text) == text
        assert f"{Reason(text)}" == text
