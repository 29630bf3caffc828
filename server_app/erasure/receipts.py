"""Receipts: every holder of what an erasure destroys is told to delete its derived state, and signs that it has.

An organisation without a node, without an answer in time, or with any answer but its own receipt for this very erasure
is left outstanding, with an event that says why: an erasure does not depend on the holders' good will.
"""

from collections.abc import Mapping

from flwr.app import Message, RecordDict

from core.canonical import Address
from core.erasures import Attestation, Receipt
from core.errors import ForgeryError
from core.escape import one_line
from core.genesis import Genesis
from core.messages import queries
from core.messages.queries import DELETE, Deletion
from core.rejections import Reason
from core.signed import Signed
from core.storage.events import EventLog
from server_app.admission import RejectedError, read_reply
from server_app.exchange import Send, ask


def gather(
    genesis: Genesis, attested: Signed[Attestation], nodes: Mapping[Address, int], send: Send, events: EventLog
) -> tuple[Signed[Receipt], ...]:
    """The receipts of an erasure's holders, in their order; `nodes` are those that speak for them."""
    holders, erasure = attested.value.holders, attested.value.erasure
    receipts: dict[Address, Signed[Receipt]] = {}
    missing = {holder: RejectedError(Reason.NOT_CONNECTED, "no node speaks for it") for holder in holders}
    contents = ((holder, Deletion(genesis, holder, attested).to_content()) for holder in holders if holder in nodes)
    messages = ((holder, Message(query, nodes[holder], DELETE, group_id="delete")) for holder, query in contents)
    for holder, reply in ask(messages, send):
        try:
            receipts[holder] = receipt_in(reply, genesis, Receipt(genesis.digest, holder, erasure))
        except RejectedError as error:
            missing[holder] = error
        else:
            events.write("receipt", organisation=holder)
    for holder, why in missing.items():
        if holder not in receipts:
            events.write("receipt-missing", organisation=holder, reason=why.reason, detail=one_line(why.detail))
    return tuple(receipts[holder] for holder in holders if holder in receipts)


def receipt_in(reply: Message | None, genesis: Genesis, expected: Receipt) -> Signed[Receipt]:
    """The receipt in a holder's reply; raises RejectedError for none, and for any but the one expected."""

    def verified(content: RecordDict) -> Signed[Receipt]:
        signed = queries.receipt_of(content)
        if (got := signed.verified(genesis)) != expected:
            raise ForgeryError(f"receipt of {expected.organisation}: expected {expected}, got {got}")
        return signed

    return read_reply(reply, verified, "no receipt came in time")
