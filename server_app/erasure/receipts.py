"""Receipts: every holder of what an erasure takes back is told to delete it, and signs that it has.

An organisation that no node speaks for, that does not answer in time, or that answers with anything but its own receipt
for this very erasure is left outstanding, with an event that says why. An erasure waits for nobody's good will.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from flwr.app import Message

from core.canonical import Address
from core.erasures import Attestation, Receipt
from core.errors import ForgeryError, FormatError
from core.genesis import Genesis
from core.messages import codec as wire
from core.signed import Signed
from core.storage.events import EventLog
from server_app.admission import Reason, RejectedError
from server_app.exchange import last_line, printable

Ask = Callable[[Iterable[tuple[Address, Message]]], Iterator[tuple[Address, Message | None]]]
"""Sends each organisation its message and yields the replies as they come, None where there is none."""


def gather(
    genesis: Genesis, attested: Signed[Attestation], nodes: Mapping[Address, int], ask: Ask, events: EventLog
) -> tuple[Signed[Receipt], ...]:
    """The receipts of an erasure's holders, in their order; `nodes` are those that speak for them."""
    attestation = attested.value
    found: dict[Address, Signed[Receipt]] = {}
    for holder, reply in ask(_queries(genesis, attested, nodes)):
        try:
            found[holder] = _receipt(genesis, attested, holder, reply)
        except RejectedError as error:
            events.write("receipt-missing", organisation=holder, reason=error.reason, detail=printable(error.detail))
        else:
            events.write("receipt", organisation=holder)
    for holder in (holder for holder in attestation.holders if holder not in nodes):
        events.write(
            "receipt-missing", organisation=holder, reason=Reason.NOT_CONNECTED, detail="no node speaks for it"
        )
    return tuple(found[holder] for holder in attestation.holders if holder in found)


def _queries(
    genesis: Genesis, attested: Signed[Attestation], nodes: Mapping[Address, int]
) -> Iterator[tuple[Address, Message]]:
    for holder in attested.value.holders:
        if (node := nodes.get(holder)) is not None:
            content = wire.Deletion(genesis, holder, attested).to_content()
            yield holder, Message(content, node, wire.DELETE, group_id="delete")


def _receipt(
    genesis: Genesis, attested: Signed[Attestation], holder: Address, reply: Message | None
) -> Signed[Receipt]:
    """A holder's receipt; raises RejectedError for anything else."""
    if reply is None:
        raise RejectedError(Reason.NO_REPLY, "no receipt came in time")
    if reply.has_error():
        raise RejectedError(Reason.CLIENT_ERROR, last_line(reply.error.reason))
    try:
        if refusal := wire.Refusal.from_content(reply.content):
            raise RejectedError(Reason(refusal.reason), refusal.detail)
        receipt = wire.receipt_of(reply.content)
        if receipt.value.organisation != holder:
            raise RejectedError(Reason.FORGED_SIGNATURE, f"the receipt is of {receipt.value.organisation}")
        if receipt.verified(genesis).erasure != attested.value.erasure:
            raise RejectedError(Reason.FORGED_SIGNATURE, f"the receipt is for erasure {receipt.value.erasure}")
    except FormatError as error:
        raise RejectedError(Reason.MALFORMED, str(error)) from error
    except ForgeryError as error:
        raise RejectedError(Reason.FORGED_SIGNATURE, str(error)) from error
    return receipt
