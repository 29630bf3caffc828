"""Erasing records: the organisation says which of them it trains on, and trains without them from then on.

It answers because it asked itself: the query carries its own signed request, which is about these records alone. Its
data, and its note of erased records, stay with it (client_app/erased_records.py).
"""

from functools import partial

from flwr.app import Message

from core.canonical import Digest
from core.erasures import ErasureRequest
from core.errors import RunError, UsageError
from core.escape import one_line
from core.genesis import Genesis
from core.messages.queries import RECORDS, RecordsAnswer, RecordsQuery
from core.signed import Signed
from server_app.admission import RejectedError, read_reply
from server_app.exchange import Send, ask


def check_held(
    genesis: Genesis, request: Signed[ErasureRequest], records: tuple[Digest, ...], node: int | None, send: Send
) -> None:
    """Check that the organisation trains on all of these records.

    Raises UsageError when it does not, RunError when it does not say.
    """
    answer = _answer(RecordsQuery(genesis, request, records, forget=False), node, send)
    name = genesis.names[request.value.organisation]
    if missing := set(records) - {*answer.held, *answer.forgotten}:
        hint = "records that it holds out are never learnt"
        raise UsageError(f"{len(missing)} of {len(records)} records are not in the training data of {name}: {hint}")
    if answer.forgotten:
        raise UsageError(f"{len(answer.forgotten)} of {len(records)} records of {name} are already erased")


def request_record_erasure(
    genesis: Genesis, request: Signed[ErasureRequest], records: tuple[Digest, ...], node: int | None, send: Send
) -> None:
    """Have the organisation erase these records from its training; once more changes nothing.

    Raises RunError when it does not.
    """
    answer = _answer(RecordsQuery(genesis, request, records, forget=True), node, send)
    if left := set(records) - set(answer.forgotten):
        name = genesis.names[request.value.organisation]
        raise RunError(f"{name} has not erased {len(left)} of {len(records)} records: ask for the erasure again")


def _answer(query: RecordsQuery, node: int | None, send: Send) -> RecordsAnswer:
    organisation = query.request.value.organisation
    name = query.genesis.names[organisation]
    if node is None:
        raise RunError(f"no node speaks for {name}: connect it, since it has to train without the records")
    message = Message(query.to_content(), node, RECORDS, group_id="records")
    ((_, reply),) = ask([(organisation, message)], send)
    try:
        parse = partial(RecordsAnswer.from_content, asked=len(query.records))
        return read_reply(reply, parse, "no answer came in time")
    except RejectedError as error:
        detail = one_line(error.detail)
        raise RunError(f"{name} was asked for its records, got {error.reason}: {detail}; ask again") from error
