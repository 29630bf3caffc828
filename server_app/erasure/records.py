"""Erasing records: the organisation is asked which of them it holds, and told to train without them from then on.

It answers because it asked itself: the query carries its own signed request, which is about these records alone. Where
its data are, and what it has forgotten, stays with it (client_app/forgotten.py).
"""

from flwr.app import Message

from core.canonical import Digest
from core.erasures import ErasureRequest
from core.errors import FormatError, RunError, UsageError
from core.genesis import Genesis
from core.messages import codec as wire
from core.signed import Signed
from server_app.erasure.receipts import Ask
from server_app.exchange import last_line, printable


def check_held(
    genesis: Genesis, request: Signed[ErasureRequest], records: tuple[Digest, ...], node: int | None, ask: Ask
) -> None:
    """Check that the organisation trains on all of these records.

    Raises UsageError when it does not, RunError when it does not say.
    """
    known = _answer(wire.RecordsQuery(genesis, request, records, forget=False), node, ask)
    name = genesis.names[request.value.organisation]
    if missing := sorted(set(records) - {*known.held, *known.forgotten}):
        held_out = "what it holds out is never learnt"
        raise UsageError(f"{len(missing)} of {len(records)} records are not in the training data of {name}: {held_out}")
    if known.forgotten:
        raise UsageError(f"{len(known.forgotten)} of {len(records)} records of {name} are already erased")


def forget(
    genesis: Genesis, request: Signed[ErasureRequest], records: tuple[Digest, ...], node: int | None, ask: Ask
) -> None:
    """Have the organisation forget these records; once more changes nothing. Raises RunError when it does not."""
    known = _answer(wire.RecordsQuery(genesis, request, records, forget=True), node, ask)
    if left := set(records) - set(known.forgotten):
        name = genesis.names[request.value.organisation]
        raise RunError(f"{name} has not forgotten {len(left)} of {len(records)} records: ask for the erasure again")


def _answer(query: wire.RecordsQuery, node: int | None, ask: Ask) -> wire.RecordsAnswer:
    who = query.request.value.organisation
    name = query.genesis.names[who]
    if node is None:
        raise RunError(f"no node speaks for {name}: it has to say which records it holds, and train without them")
    message = Message(query.to_content(), node, wire.RECORDS, group_id="records")
    reply = dict(ask([(who, message)]))[who]
    if reply is None:
        raise RunError(f"{name} did not answer which records it holds: ask for the erasure again")
    if reply.has_error():
        raise RunError(f"{name} cannot say which records it holds: {printable(last_line(reply.error.reason))}")
    try:
        if refusal := wire.Refusal.from_content(reply.content):
            raise RunError(f"{name} {refusal.reason}: {printable(refusal.detail)}")
        return wire.RecordsAnswer.from_content(reply.content)
    except FormatError as error:
        raise RunError(f"{name} answers about its records with something else: {error}") from error
