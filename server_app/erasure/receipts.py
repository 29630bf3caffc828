"""Receipts: every holder of what an erasure destroys is told to delete its derived state, and signs that it has.

An organisation without a node, without an answer in time, or with any answer but its own receipt for this very erasure
is left outstanding, with an event that says why. An erasure waits for nobody's good will.
"""

from collections.abc import Iterator, Mapping

from flwr.app import Message, RecordDict

from core.canonical import Address
from core.erasures import Attestation, Receipt
from core.errors import ForgeryError
from core.genesis import Genesis
from core.messages import queries
from core.messages.queries import DELETE, Deletion
from core.rejections import Reason
from core.signed import Signed
from core.storage.events import EventLog
from server_app.admission import RejectedError, read_reply
from server_app.exchange import Send, ask, printable


def gather(
    genesis: Genesis, attested: Signed[Attestation], nodes: Mapping[Address, int], send: Send, events: EventLog
) -> tuple[Signed[Receipt], ...]:
    """The receipts of an erasure's holders, in their order; `nodes` are those that speak for them."""
    holders = attested.value.holders
    found: dict[Address, Signed[Receipt]] = {}
    for holder in (holder for holder in holders if holder not in nodes):
        _note_missing(events, holder, RejectedError(Reason.NOT_CONNECTED, "no node speaks for it"))
    for holder, reply in ask(_queries(genesis, attested, nodes), send):
        try:
            found[holder] = _receipt(genesis, attested, holder, reply)
        except RejectedError as error:
            _note_missing(events, holder, error)
        else:
            events.write("receipt", organisation=holder)
    return tuple(found[holder] for holder in holders if holder in found)


def _queries(
    genesis: Genesis, attested: Signed[Attestation], nodes: Mapping[Address, int]
) -> Iterator[tuple[Address, Message]]:
    for holder in attested.value.holders:
        if (node := nodes.get(holder)) is not None:
            content = Deletion(genesis, holder, attested).to_content()
            yield holder, Message(content, node, DELETE, group_id="delete")


def _receipt(
    genesis: Genesis, attested: Signed[Attestation], holder: Address, reply: Message | None
) -> Signed[Receipt]:
    """A holder's own receipt for this erasure; raises RejectedError for anything else."""

    def verified(content: RecordDict) -> Signed[Receipt]:
        receipt = queries.receipt_of(content)
        if receipt.value.organisation != holder:
            raise ForgeryError(f"expected the receipt of {holder}, got that of {receipt.value.organisation}")
        if (got := receipt.verified(genesis).erasure) != (expected := attested.value.erasure):
            raise ForgeryError(f"expected a receipt for erasure {expected}, got one for {got}")
        return receipt

    return read_reply(reply, verified, "no receipt came in time")


def _note_missing(events: EventLog, holder: Address, error: RejectedError) -> None:
    events.write("receipt-missing", organisation=holder, reason=error.reason, detail=printable(error.detail))
