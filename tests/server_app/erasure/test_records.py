"""The coordinator asks an organisation about records of its own: what it makes of the answers."""

from collections.abc import Callable, Iterable, Iterator

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from core.canonical import Digest
from core.erasures import ErasureRequest, hidden
from core.errors import RunError, UsageError
from core.messages.queries import RecordsAnswer, RecordsQuery
from core.messages.refusal import Cause, Refusal, Refused
from server_app.erasure.records import check_held, request_record_erasure
from tests import erasures as e
from tests import federation as f

GENESIS = f.genesis()
RECORDS = tuple(sorted(f.other(f"record {number}") for number in range(3)))
NODE = 1


def request(records: tuple[Digest, ...] = RECORDS) -> ErasureRequest:
    committed = hidden(f.key("medical").salt_for(f.other("nonce")), records)
    return ErasureRequest(
        GENESIS.digest, f.address("medical"), "shards", (0,), committed, len(records), "a test", e.DAY, f.other("nonce")
    )


SIGNED = request().sign(f.key("medical"), GENESIS.chain)

Send = Callable[[Iterable[Message]], Iterator[Message]]


@pytest.fixture(autouse=True)
def _task() -> None:
    """Messages are made within a task of Flower's."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def answering(content: RecordDict | Error | None, seen: list[RecordsQuery] | None = None) -> Send:
    """The organisation's node answers with this; with nothing at all when it is None."""

    def send(messages: Iterable[Message]) -> Iterator[Message]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = "asked"
            if seen is not None:
                seen.append(RecordsQuery.from_content(message.content))
            if content is not None:
                yield Message(content, reply_to=message)

    return send


def answer(held: int, forgotten: int) -> Send:
    """It trains on so many of the records, and has erased so many others."""
    return answering(RecordsAnswer(RECORDS[:held], RECORDS[held : held + forgotten]).to_content())


def test_records_that_it_trains_on_may_be_erased() -> None:
    check_held(GENESIS, SIGNED, RECORDS, NODE, answer(3, 0))


@pytest.mark.parametrize(
    ("held", "forgotten", "error"),
    [
        (2, 0, "1 of 3 records are not in the training data of medical"),
        (0, 0, "3 of 3 records are not in the training data of medical"),
        (2, 1, "1 of 3 records of medical are already erased"),
        (0, 3, "3 of 3 records of medical are already erased"),
    ],
)
def test_records_that_it_does_not_train_on_are_refused(held: int, forgotten: int, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        check_held(GENESIS, SIGNED, RECORDS, NODE, answer(held, forgotten))


def test_asking_changes_nothing_and_erasing_says_so() -> None:
    seen: list[RecordsQuery] = []
    erased = RecordsAnswer((), RECORDS).to_content()
    check_held(GENESIS, SIGNED, RECORDS, NODE, answering(RecordsAnswer(RECORDS, ()).to_content(), seen))
    request_record_erasure(GENESIS, SIGNED, RECORDS, NODE, answering(erased, seen))
    assert [(query.forget, query.records, query.request) for query in seen] == [
        (False, RECORDS, SIGNED),
        (True, RECORDS, SIGNED),
    ]


def test_an_organisation_that_keeps_records_is_told() -> None:
    with pytest.raises(RunError, match="medical has not erased 2 of 3 records"):
        request_record_erasure(GENESIS, SIGNED, RECORDS, NODE, answer(2, 1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no-reply"),
        (Error(2, "Traceback\n\x1b[31mValueError: no data"), r"client-error: \\x1b\[31mValueError: no data"),
        (Refusal(Refused.OBJECTED, Cause.MESSAGE, "who asks?").to_content(), "objected: who asks"),
        (RecordDict(), "malformed"),
    ],
    ids=["silent", "failed", "refused", "empty"],
)
@pytest.mark.parametrize("step", [check_held, request_record_erasure])
def test_an_erasure_does_not_go_on_without_an_answer(
    step: Callable[..., None], content: RecordDict | Error | None, reason: str
) -> None:
    with pytest.raises(RunError, match=f"medical was asked for its records, got {reason}"):
        step(GENESIS, SIGNED, RECORDS, NODE, answering(content))


def test_an_organisation_without_a_node_has_to_connect() -> None:
    with pytest.raises(RunError, match="no node speaks for medical: connect it"):
        check_held(GENESIS, SIGNED, RECORDS, None, answer(3, 0))
