"""An organisation that will not take part says so, in its own words."""

from typing import Any

import pytest
from flwr.app import RecordDict

from core.errors import FormatError
from core.messages.refusal import Refusal, Refused
from tests.core.messages.records import config


@pytest.mark.parametrize("reason", list(Refused))
def test_a_refusal_arrives_as_it_was_sent(reason: Refused) -> None:
    refusal = Refusal(reason, "the chain is 3 rounds late")
    assert Refusal.from_content(refusal.to_content()) == refusal


def test_any_other_reply_refuses_nothing() -> None:
    assert Refusal.from_content(RecordDict()) is None
    assert Refusal.from_content(RecordDict({"manifest": config({})})) is None


@pytest.mark.parametrize(
    "broken", [{}, {"reason": "abstained"}, {"detail": "why"}, {"reason": "tired", "detail": "why"}, [], b"{"], ids=str
)
def test_a_broken_refusal_is_a_format_error(broken: Any) -> None:
    with pytest.raises(FormatError):
        Refusal.from_content(RecordDict({"refusal": config(broken)}))
