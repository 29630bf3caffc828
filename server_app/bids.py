"""What organisations bid for a round: the bids that came with the last one, and the answers of those asked apart."""

from dataclasses import dataclass

from flwr.app import Message

from core.canonical import Address
from core.errors import ForgeryError, FormatError
from core.genesis import Genesis
from core.lanes import Lane
from core.messages import codec as wire
from core.update import ABSTAIN, Bid
from server_app.admission import Reason, RejectedError, check_bid
from server_app.exchange import last_line


@dataclass(frozen=True)
class BidRequest:
    """Whom an offer must come from, and for which round."""

    genesis: Genesis
    organisation: Address
    lane: int
    generation: int
    round: int


def coming(lane: Lane, genesis: Genesis) -> dict[Address, Bid]:
    """The bids in the signed manifests of a lane's last round for the next; one out of range abstains."""
    found: dict[Address, Bid] = {}
    for admitted in lane.head.value.admitted if lane.head else ():
        metrics = admitted.signed.value.metrics
        if "next-steps" in metrics and admitted.organisation in lane.members:
            bid = Bid(int(metrics["next-steps"]), int(metrics.get("next-rank", 0)))
            try:
                check_bid(bid, genesis)
            except RejectedError:
                bid = ABSTAIN
            found[admitted.organisation] = bid
    return found


def answered(reply: Message | None, wanted: BidRequest) -> Bid:
    """The bid in the reply to a query; raises RejectedError for none, a forged one, or one out of range."""
    if reply is None:
        raise RejectedError(Reason.NO_REPLY, "its agent did not answer")
    if reply.has_error():
        raise RejectedError(Reason.CLIENT_ERROR, last_line(reply.error.reason))
    try:
        if refusal := wire.Refusal.from_content(reply.content):
            raise RejectedError(Reason(refusal.reason), refusal.detail)
        offer = wire.offer_of(reply.content).verified(wanted.genesis)
    except FormatError as error:
        raise RejectedError(Reason.MALFORMED, str(error)) from error
    except ForgeryError as error:
        raise RejectedError(Reason.FORGED_SIGNATURE, str(error)) from error
    got = offer.genesis, offer.organisation, offer.lane, offer.generation, offer.round
    if got != (wanted.genesis.digest, wanted.organisation, wanted.lane, wanted.generation, wanted.round):
        raise RejectedError(Reason.WRONG_ROUND, f"offer of {offer.organisation} for round {offer.round}")
    if offer.bid != ABSTAIN:
        check_bid(offer.bid, wanted.genesis)
    return offer.bid
