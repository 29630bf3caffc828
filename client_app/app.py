"""The ClientApp: bind, check, bid, train, evaluate, delete derived state, erase records.

A handler checks a message before it acts on it; what it raises is answered by a refusal (client_app/refusals.py).
Whatever needs the base model is in client_app/learning.py: a node binds without torch.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.agreement import Pins
from client_app.checks import check_member, check_proposal, check_request
from client_app.deletion import delete_derived_state
from client_app.hosting import node_of
from client_app.refusals import errors_stay_home
from client_app.sent import Answers
from core.canonical import ZERO_DIGEST
from core.errors import LedgerUnreachableError, ObjectionError
from core.generations import check_members
from core.messages import queries
from core.messages.queries import (
    AdmissionQuery,
    Bind,
    Bound,
    ConsentQuery,
    Deletion,
    RecordsAnswer,
    RecordsQuery,
    RevealQuery,
)
from core.site_policy import SiteTerms
from core.update import Asked

app = ClientApp(mods=[errors_stay_home])


@app.query("bind")
def bind(message: Message, context: Context) -> Message:
    """Answer with the organisations hosted here, each under its own signature on the challenge."""
    query = Bind.from_content(message.content)
    node = node_of(context)
    Pins.of(context.node_config).check_asked(query.asked, query.chain)
    if not node.known:  # in a deployment, where an organisation on another chain would object to every round
        with suppress(LedgerUnreachableError):
            node.oversight.check_contract(query.chain)
    for host in node.hosts.values():
        node.check_site(host)
    plain = node.registrations(query.asked, context.node_config)
    registrations = tuple(node.agreement(node.hosts[who]).register(each, query.chain) for who, each in plain.items())
    return Answers(node, query.asked).answer(message, Bound(registrations, node.known).to_content())


@app.query("reveal")
def reveal(message: Message, context: Context) -> Message:
    """Show the nonce to which the organisation has committed, for one set of members."""
    query = RevealQuery.from_content(message.content)
    node = node_of(context)
    nonce = node.agreement(node.host(query.organisation)).reveal(query.registrations, query.chain)
    return Answers(node, query.registrations[0].value).answer(message, queries.revealed(nonce))


@app.query("consent")
def consent(message: Message, context: Context) -> Message:
    """Agree to the genesis of a federation, if it is what the organisation was shown and its settings want."""
    query = ConsentQuery.from_content(message.content)
    node = node_of(context)
    Pins.of(context.node_config).check(query.genesis)
    host = node.host(query.organisation)
    node.check_site(host, SiteTerms.of(query.genesis))
    check_member(query.genesis, host.organisation)
    agreed = node.agreement(host).consent(query.genesis)
    return Answers(node, query.genesis).answer(message, queries.consented(agreed))


@app.query("admission")
def admit(message: Message, context: Context) -> Message:
    """Agree to newcomers of the own federation, or to join one, where the settings and the site's policy allow it."""
    query = AdmissionQuery.from_content(message.content)
    node, genesis, proposal = node_of(context), query.genesis, query.proposal
    host, pins = node.host(query.organisation, genesis), Pins.of(context.node_config)
    joins = {member.address: member for member in proposal.joins}
    newcomer, openings = joins.get(host.key.address), [signed.verified(genesis) for signed in query.openings]
    pins.check_asked(Asked(genesis.coordinator, genesis.run, ZERO_DIGEST), genesis.chain)
    pins.check_members({*proposal.members, *joins})
    policy = node.check_site(host, SiteTerms.of(genesis))
    if newcomer and not host.key.derived:
        policy.check_joining(genesis)
    check_members(genesis, openings)
    check_proposal(genesis, proposal, openings)
    # A member that left is asked no more, and a newcomer only for what it registers.
    if newcomer and newcomer != host.organisation:
        raise ObjectionError(f"newcomer: expected {host.organisation}, got {newcomer}")
    if not newcomer and host.key.address not in proposal.members:
        raise ObjectionError(f"proposal: expected {host.key.address} among members or newcomers, got neither")
    agreement = node.agreement(host).admit(genesis, proposal)
    return Answers(node, genesis).answer(message, queries.agreed(agreement))


@app.query("delete")
def delete(message: Message, context: Context) -> Message:
    """Delete the organisation's derived state that knew an erased organisation; answer with a signed receipt."""
    query = Deletion.from_content(message.content)
    node = node_of(context)
    host = node.host(query.organisation, query.genesis)
    receipt = delete_derived_state(query, host, node)
    return Answers(node, query.genesis).answer(message, queries.deleted(receipt))


@app.query("records")
def erase_records(message: Message, context: Context) -> Message:
    """On the organisation's own request, answer which records it trains on; erase them when the query says so."""
    query = RecordsQuery.from_content(message.content)
    node = node_of(context)
    host = node.host(query.request.value.organisation, query.genesis)
    erased = node.erased_records(host, query.genesis)
    check_request(query, node.member(host, query.genesis), host.key)
    held = Counter(record.digest for record in erased.left(host.data.train))
    if query.forget:
        newly = {record: held.pop(record) for record in query.records if record in held}
        # Once, as what waits later was trained without them; who never let one go is asked for no receipt.
        for lane in query.request.value.lanes if newly else ():
            node.held_updates(host, query.genesis).drop(lane)
        erased.note(newly)
    gone = erased.counts()
    known = (tuple(record for record in query.records if record in records) for records in (held, gone))
    return Answers(node, query.genesis).answer(message, RecordsAnswer(*known).to_content())


def _loads_model(handler: str) -> Callable[[Message, Context], Message]:
    """A handler of client_app/learning.py, imported with torch and the base's libraries when it is first asked."""

    def answer(message: Message, context: Context) -> Message:
        found: Message = getattr(import_module("client_app.learning"), handler)(message, context)
        return found

    return answer


app.query("check")(_loads_model("check"))
app.query("offer")(_loads_model("offer"))
app.train()(_loads_model("train"))
app.evaluate()(_loads_model("evaluate"))
