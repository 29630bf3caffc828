"""What an organisation tells of an error: a code, and nothing of its own machine."""

import logging
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client_app.refusals import errors_stay_home
from core.errors import DataError, LedgerUnreachableError, ObjectionError
from core.messages.refusal import Cause, Refusal, Refused

SECRET = "/home/clinic/patients.jsonl:7 at https://user:key@rpc.example"  # noqa: S105 - what must not travel


@pytest.fixture
def message() -> Message:
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    return Message(RecordDict(), 1, "query.test")


def answered(message: Message, error: Exception, **node_config: Any) -> Refusal:
    def handler(_message: Message, _context: Context) -> Message:
        raise error

    reply = errors_stay_home(message, Context(1, 1, node_config, RecordDict(), {}), handler)
    refusal = Refusal.from_content(reply.content)
    assert refusal
    return refusal


@pytest.mark.parametrize(
    ("error", "reason", "cause"),
    [
        (DataError(SECRET), Refused.FAILED, Cause.DATA),
        (LedgerUnreachableError(SECRET), Refused.OBJECTED, Cause.LEDGER_UNREACHABLE),
        (FileNotFoundError(2, "gone", SECRET), Refused.FAILED, Cause.SYSTEM),
        (RuntimeError(SECRET), Refused.FAILED, Cause.INTERNAL),
    ],
)
def test_an_error_travels_as_its_code_and_its_text_stays_at_home(
    message: Message, error: Exception, reason: Refused, cause: Cause, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("flwr").propagate = True
    refusal = answered(message, error, organisation="clinic")
    assert refusal == Refusal(reason, cause, "")
    assert SECRET in caplog.text


def test_an_objection_says_what_is_wrong_with_what_was_sent(message: Message) -> None:
    refusal = answered(message, ObjectionError("state: expected 0x1, got 0x2"), organisation="clinic")
    assert refusal == Refusal(Refused.OBJECTED, Cause.MESSAGE, "state: expected 0x1, got 0x2")


def test_in_a_simulation_organisations_are_at_home(message: Message) -> None:
    assert answered(message, DataError(SECRET), **{"partition-id": 0}).detail == SECRET


@pytest.mark.parametrize("text", ["x" * 10**6, "\U0001f600" * 400, "\x1b" * 400])
def test_a_refusal_is_never_above_its_bound(message: Message, text: str) -> None:
    assert answered(message, ObjectionError(text)).cause is Cause.MESSAGE
