"""The agents' bids for a round: those that came with the last round's manifests, and those of agents asked apart."""

from collections.abc import Mapping
from dataclasses import asdict

from flwr.app import Message, RecordDict

from core.canonical import Address
from core.escape import one_line
from core.genesis import Genesis
from core.messages import queries
from core.messages.queries import OFFER
from core.rejections import Reason
from core.round_key import RoundKey
from core.signed import Signed
from core.update import ABSTAIN, Offer
from server_app.admission import RejectedError, check_bid, read_reply
from server_app.exchange import Send, ask
from server_app.rounds import Recipient, Rounds

Offers = dict[int, list[Signed[Offer]]]
"""By lane the offers of agents that were asked apart."""


def collect(rounds: Rounds, number: int, nodes: Mapping[Address, int], send: Send) -> Offers:
    """The offers for a round of the agents that sent no bid with the last one, in the lanes that lack it.

    Agents on `nodes` are asked. An offer that is late, forged or out of range is none, and who made it abstains.
    """
    lanes = [lane for lane in rounds.lanes if lane.lacks(number)]
    members = (Recipient(lane.index, member) for lane in lanes for member in lane.members)
    known = {lane.index: rounds.bids(lane) for lane in lanes}
    missing = [r for r in members if r.organisation in nodes and r.organisation not in known[r.lane]]
    contents = ((recipient, rounds.offer_query(recipient).to_content()) for recipient in missing)
    messages = ((r, Message(query, nodes[r.organisation], OFFER, group_id=str(number))) for r, query in contents)
    offers: Offers = {lane.index: [] for lane in lanes}
    for recipient, reply in ask(messages, send):
        lane, organisation = rounds.lanes[recipient.lane], recipient.organisation
        try:
            offers[lane.index].append(offer_in(reply, rounds.genesis, organisation, lane.next_key(rounds.genesis)))
        except RejectedError as error:
            # A round waits for no agent: one that fails or lies sits it out.
            reason = one_line(str(error))
            rounds.events.write("bid-rejected", round=number, organisation=organisation, reason=reason)
    for lane in lanes:
        bids = dict.fromkeys((r.organisation for r in missing if r.lane == lane.index), ABSTAIN)
        bids |= rounds.bids(lane, offers[lane.index])
        plain = {organisation: asdict(bid) for organisation, bid in bids.items()}
        rounds.events.write("bids", lane=lane.index, round=number, bids=plain)
    return offers


def offer_in(reply: Message | None, genesis: Genesis, organisation: Address, key: RoundKey) -> Signed[Offer]:
    """The offer in an agent's reply; raises RejectedError for none, another's, another round's or one out of range."""

    def verified_offer(content: RecordDict) -> Signed[Offer]:
        signed = queries.offer_of(content)
        signed.verified(genesis)
        return signed

    signed = read_reply(reply, verified_offer, "its agent did not answer")
    offer = signed.value
    if (offer.organisation, offer.key) != (organisation, key):
        got = f"got {offer.organisation} for {offer.key}"
        raise RejectedError(Reason.WRONG_ROUND, f"expected {organisation} for {key}, {got}")
    if offer.bid != ABSTAIN:
        check_bid(offer.bid, genesis)
    return signed
