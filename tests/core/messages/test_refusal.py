"""An organisation that will not take part says so by a code."""

from typing import Any

import pytest
from flwr.app import RecordDict

from core.errors import DataError, ForgeryError, FormatError, LedgerUnreachableError, ObjectionError
from core.messages.refusal import Cause, Refusal, Refused
from tests.core.messages.records import config


@pytest.mark.parametrize("reason", list(Refused))
def test_a_refusal_arrives_as_it_was_sent(reason: Refused) -> None:
    refusal = Refusal(reason, Cause.CHAIN_LATE, "the chain is 3 rounds late")
    assert Refusal.from_content(refusal.to_content()) == refusal


def test_any_other_reply_refuses_nothing() -> None:
    assert Refusal.from_content(RecordDict()) is None
    assert Refusal.from_content(RecordDict({"manifest": config({})})) is None


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"reason": "abstained"},
        {"reason": "tired", "cause": "price", "detail": ""},
        {"reason": "abstained", "cause": "whim", "detail": ""},
        {"reason": "abstained", "cause": "price", "detail": "x" * 1024},
        [],
        b"{",
    ],
    ids=lambda broken: str(broken)[:60],
)
def test_a_broken_refusal_is_a_format_error(broken: Any) -> None:
    with pytest.raises(FormatError):
        Refusal.from_content(RecordDict({"refusal": config(broken)}))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (DataError("x"), Cause.DATA),
        (ObjectionError("x"), Cause.MESSAGE),
        (ForgeryError("x"), Cause.MESSAGE),
        (LedgerUnreachableError("x"), Cause.LEDGER_UNREACHABLE),
        (PermissionError("x"), Cause.SYSTEM),
        (ZeroDivisionError("x"), Cause.INTERNAL),
    ],
)
def test_an_error_is_told_as_its_most_special_cause(error: Exception, cause: Cause) -> None:
    assert Cause.of(error) is cause
