"""What an organisation keeps that knew somebody who was erased, and how it lets go of it.

    the adapters and records that it was sent    not kept: a ClientApp lives for one message
    its witness memory                           digests, salted where they speak of states; kept, it is its evidence
    its agent's saved tables                     those that learnt what rounds paid that the erasure took back: deleted

It believes nobody alone: coordinator and requester must have signed, for the federation that it joined, and its own
ledger must know the erasure.
"""

from agents.q_learning import Notebook
from client_app.hosting import Host, Node
from core.erasures import Attestation, Receipt
from core.errors import IntegrityError
from core.genesis import Genesis
from core.messages.codec import Deletion
from core.signed import Signed
from core.update import Organisation


def delete(query: Deletion, host: Host, node: Node) -> Signed[Receipt]:
    """Delete what knew the erased, and sign for it; once more changes nothing.

    Raises IntegrityError when what is asked does not hold, LedgerUnreachableError when the organisation's own ledger
    does not answer, RunError when something cannot be deleted.
    """
    genesis = query.genesis
    attestation = query.attested.verified(genesis)
    _check(genesis, attestation, node.member(host, genesis))
    node.oversight.check_attested(genesis, attestation)
    if query.organisation in genesis.lanes[attestation.lane]:
        notebook = Notebook(node.agency.state.agent(genesis.digest, query.organisation))
        notebook.forget(attestation.generation, attestation.parent_round)
    return Receipt(genesis.digest, attestation.erasure, query.organisation).sign(host.key, genesis.chain)


def _check(genesis: Genesis, attestation: Attestation, member: Organisation) -> None:
    """It is the organisation's own federation, and one of its holders is asked."""
    own = member.address
    if genesis.organisation(own) != member:
        raise IntegrityError(f"genesis {genesis.digest} has {genesis.organisation(own)}, {member} wanted")
    if own not in attestation.holders:
        raise IntegrityError(f"the attestation does not list {own} among those who held what is erased")
