"""Deleting derived state: everything that an organisation keeps of states that knew an erased organisation.

    the adapters and records that it was sent    not kept: a ClientApp lives for one message
    its witness memory                           digests, salted where they speak of states; kept, it is its evidence
    its agent's saved states                     deleted, where they learnt payments of rounds that are gone
    what compression left out of its updates     deleted, where these were trained in rounds that are gone
    updates that wait for a person               deleted, likewise

No single party can have it delete anything: the requester must have signed its request and the coordinator the
attestation, for the federation that it joined, and its own ledger must know the erasure.
"""

from agents.notebook import Notebook
from client_app.hosting import Host, Node
from client_app.signing import signed
from core.erasures import Receipt
from core.errors import ObjectionError
from core.messages.queries import Deletion
from core.signed import Signed


def delete_derived_state(query: Deletion, host: Host, node: Node) -> Signed[Receipt]:
    """Delete the state that knew the erased organisation, and sign for it; once more changes nothing.

    Raises IntegrityError when the query does not hold, LedgerUnreachableError when the organisation's own ledger does
    not answer, RunError when something cannot be deleted.
    """
    genesis = query.genesis
    # Anybody can invent a federation with this organisation in it, and both its coordinator and its requester.
    node.agreement(host).check(genesis)
    attestation = query.attested.verified(genesis)
    member = node.member(host, genesis)
    if (got := genesis.organisation(member.address)) != member:
        raise ObjectionError(f"genesis {genesis.digest}: expected {member}, got {got}")
    if member.address not in attestation.holders:
        raise ObjectionError(f"the attestation does not list {member.address} as a holder")
    node.oversight.check_attested(genesis, attestation)
    if query.organisation in genesis.ever_in(attestation.lane):
        notebook = Notebook(node.agency.state.agent(genesis.digest, query.organisation))
        feedback = node.feedback(host, genesis, attestation.lane)
        for kept in (notebook, feedback):
            kept.delete_after(attestation.parent_round, attestation.generation)
        held = node.held_updates(host, genesis)
        held.drop_after(attestation.lane, attestation.parent_round, attestation.generation)
    return signed(Receipt(genesis.digest, query.organisation, attestation.erasure), host, genesis)
