"""The coordinator asks every holder for a receipt; whoever gives none, or a wrong one, is outstanding."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from console.backends.inline import InlineGrid
from core.erasures import Receipt
from core.keys import Signature
from core.messages import queries
from core.messages.queries import Deletion
from core.messages.refusal import Cause, Refusal, Refused
from core.signed import Signed
from core.storage.events import EventLog
from server_app.erasure.receipts import gather
from server_app.exchange import exchange
from tests import federation as f
from tests.erasures import attested, signed_receipt
from tests.server_app.clients import name_of
from tests.waiting import PATIENCE_SECONDS

GENESIS = f.genesis()
ATTESTED = attested(GENESIS)
ERASURE = ATTESTED.value.erasure
HOLDERS = ATTESTED.value.holders

Answer = Callable[[Deletion], RecordDict]


def honest(query: Deletion) -> RecordDict:
    return queries.deleted(signed_receipt(query.genesis, query.attested.value.erasure, key_of(query)))


def key_of(query: Deletion) -> Any:
    return f.key(name_of(query.organisation))


def fails(_query: Deletion) -> RecordDict:
    raise RuntimeError("first line\n\x1b[31mlast line")


def asked(folder: Path, answers: dict[str, Answer], gone: tuple[str, ...] = ()) -> tuple[list[str], dict[str, str]]:
    """Who gave a receipt, and why the others did not."""

    def node(message: Message, _context: Context) -> Message:
        query = Deletion.from_content(message.content)
        return Message(answers.get(name_of(query.organisation), honest)(query), reply_to=message)

    grid = InlineGrid(cast(ClientApp, node), 1, {})
    nodes = {f.address(name): 1 for name in f.EXAMPLES if name not in gone}
    events = EventLog(folder / "events.jsonl")
    found = gather(GENESIS, ATTESTED, nodes, partial(exchange, grid, timeout=PATIENCE_SECONDS), events)
    for receipt in found:
        assert receipt.verified(GENESIS).erasure == ERASURE
    missing = [event for event in EventLog.read(events.path)[0] if event["event"] == "receipt-missing"]
    assert all(event["detail"].isprintable() for event in missing)
    return [name_of(r.value.organisation) for r in found], {name_of(e["organisation"]): e["reason"] for e in missing}


def own_receipt(query: Deletion) -> Receipt:
    return Receipt(GENESIS.digest, query.organisation, ERASURE)


def test_everybody_signs_in_the_order_of_holders(tmp_path: Path) -> None:
    assert asked(tmp_path, {}) == ([name_of(holder) for holder in HOLDERS], {})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda query: queries.deleted(signed_receipt(GENESIS, ERASURE, f.key("coding"))), "forged-signature"),
        (lambda query: queries.deleted(signed_receipt(GENESIS, f.other("erasure"), key_of(query))), "forged-signature"),
        (lambda query: queries.deleted(signed_receipt(f.genesis(seed=8), ERASURE, key_of(query))), "forged-signature"),
        (
            lambda query: queries.deleted(
                Signed(own_receipt(query), signed_receipt(GENESIS, ERASURE, f.key("coding")).signatures)
            ),
            "forged-signature",
        ),
        (lambda query: queries.deleted(Signed(own_receipt(query), (Signature("0x"),))), "forged-signature"),
        (lambda query: Refusal(Refused.OBJECTED, Cause.MESSAGE, "who asks?").to_content(), "objected"),
        (lambda query: RecordDict(), "malformed"),
        (fails, "client-error"),
    ],
    ids=["another's", "another erasure's", "another federation's", "another signed", "no signature", "refused",
         "empty", "failed"],
)  # fmt: skip
def test_whoever_gives_no_receipt_of_its_own_is_outstanding(tmp_path: Path, answer: Answer, reason: str) -> None:
    given, missing = asked(tmp_path, {"medical": answer})
    assert missing == {"medical": reason}
    assert set(given) == set(f.EXAMPLES) - {"medical"}


def test_whoever_has_no_node_is_outstanding_and_nobody_waits(tmp_path: Path) -> None:
    started = time.monotonic()
    given, missing = asked(tmp_path, {}, gone=("coding",))
    assert missing == {"coding": "not-connected"}
    assert set(given) == set(f.EXAMPLES) - {"coding"}
    assert time.monotonic() - started < PATIENCE_SECONDS
