"""The agents' bids for a round: those that came with the last round's manifests, and those of agents asked apart."""

from collections.abc import Mapping
from dataclasses import asdict

from flwr.app import Message, RecordDict

from core.canonical import Address
from core.escape import one_line
from core.genesis import Genesis
from core.lanes import Lane
from core.messages import queries
from core.messages.queries import OFFER
from core.rejections import Reason
from core.round_key import RoundKey
from core.update import ABSTAIN, Bid, Offer
from server_app.admission import RejectedError, check_bid, read_reply
from server_app.exchange import Send, ask
from server_app.rounds import Recipient, Rounds

Bids = dict[int, dict[Address, Bid]]
"""By lane and organisation; `ABSTAIN` for an agent that will not take part."""


def collect(rounds: Rounds, number: int, nodes: Mapping[Address, int], send: Send) -> Bids:
    """All bids for a round, in the lanes that lack it.

    Agents on `nodes` that sent no bid with the last round are asked apart. A bid that is late, forged or out of range
    abstains.
    """
    lanes = [lane for lane in rounds.lanes if lane.lacks(number)]
    bids = {lane.index: bids_in(lane, rounds.genesis) for lane in lanes}
    members = (Recipient(lane.index, member) for lane in lanes for member in lane.members)
    missing = [r for r in members if r.organisation in nodes and r.organisation not in bids[r.lane]]
    contents = ((recipient, rounds.offer_query(recipient).to_content()) for recipient in missing)
    messages = ((r, Message(query, nodes[r.organisation], OFFER, group_id=str(number))) for r, query in contents)
    for recipient, reply in ask(messages, send):
        lane, organisation = rounds.lanes[recipient.lane], recipient.organisation
        try:
            bid = bid_in(reply, rounds.genesis, organisation, lane.next_key(rounds.genesis))
        except RejectedError as error:
            # A round waits for no agent: one that fails or lies sits it out.
            bid, reason = ABSTAIN, one_line(str(error))
            rounds.events.write("bid-rejected", round=number, organisation=organisation, reason=reason)
        bids[lane.index][organisation] = bid
    for index, by_organisation in bids.items():
        plain = {organisation: asdict(bid) for organisation, bid in by_organisation.items()}
        rounds.events.write("bids", lane=index, round=number, bids=plain)
    return bids


def bids_in(lane: Lane, genesis: Genesis) -> dict[Address, Bid]:
    """The bids for the next round in the signed manifests of a lane's last one; one out of range abstains."""
    bids: dict[Address, Bid] = {}
    for admitted in lane.head.value.admitted if lane.head else ():
        metrics = admitted.signed.value.metrics
        if "next-steps" in metrics and admitted.organisation in lane.members:
            bid = Bid(int(metrics["next-steps"]), int(metrics.get("next-rank", 0)))
            try:
                check_bid(bid, genesis)
            except RejectedError:
                bid = ABSTAIN
            bids[admitted.organisation] = bid
    return bids


def bid_in(reply: Message | None, genesis: Genesis, organisation: Address, key: RoundKey) -> Bid:
    """The bid in an agent's reply; raises RejectedError for none, another's, one for another round or out of range."""

    def verified_offer(content: RecordDict) -> Offer:
        return queries.offer_of(content).verified(genesis)

    offer = read_reply(reply, verified_offer, "its agent did not answer")
    if (offer.organisation, offer.key) != (organisation, key):
        got = f"got {offer.organisation} for {offer.key}"
        raise RejectedError(Reason.WRONG_ROUND, f"expected {organisation} for {key}, {got}")
    if offer.bid != ABSTAIN:
        check_bid(offer.bid, genesis)
    return offer.bid
