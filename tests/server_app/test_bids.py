"""The bids for a round: those in the last round's manifests, and those of agents asked apart."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from core.composition import Composition
from core.messages import queries
from core.messages.queries import OFFER, OfferQuery
from core.messages.refusal import Cause, Refusal, Refused
from core.messages.training import Reply
from core.rejections import Reason
from core.round_key import RoundKey
from core.update import ABSTAIN, Bid, Offer
from server_app.admission import RejectedError
from server_app.bids import collect, offer_in
from server_app.rounds import Recipient, Rounds
from tests import federation as f
from tests.server_app.clients import Federation, answer, name_of

GENESIS = f.genesis()
KEY = RoundKey(GENESIS.digest, 0, 0, 1)
MEDICAL = f.address("medical")
NAMES = ("medical", "coding", "financial")
FULL = Bid(2, 2)


@pytest.fixture(autouse=True)
def _task() -> None:
    """Messages are made within a task of Flower's."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def offer(bid: Bid, by: str = "medical", signer: str = "", key: RoundKey = KEY) -> RecordDict:
    unsigned = Offer(key.genesis, f.address(by), key.lane, key.generation, key.round, bid)
    return queries.offered(unsigned.sign(f.key(signer or by), GENESIS.chain))


def reply(content: RecordDict | Error) -> Message:
    asked = Message(RecordDict(), 1, OFFER)
    asked.metadata.__dict__["_message_id"] = "asked"
    return Message(content, reply_to=asked)


@pytest.mark.parametrize("bid", [Bid(25, 2), Bid(1, 1), ABSTAIN])
def test_a_bid_in_range_or_an_abstention_is_taken_as_it_is(bid: Bid) -> None:
    assert offer_in(reply(offer(bid)), GENESIS, MEDICAL, KEY).value.bid == bid


REJECTED: dict[str, tuple[Reason, Callable[[], Message | None]]] = {
    "no answer": (Reason.NO_REPLY, lambda: None),
    "an error": (Reason.CLIENT_ERROR, lambda: reply(Error(2, "down"))),
    "a refusal": (Reason.ABSTAINED, lambda: reply(Refusal(Refused.ABSTAINED, Cause.AGENT).to_content())),
    "something else": (Reason.MALFORMED, lambda: reply(RecordDict())),
    "another's signature": (Reason.FORGED_SIGNATURE, lambda: reply(offer(FULL, signer="coding"))),
    "another federation": (
        Reason.FORGED_SIGNATURE,
        lambda: reply(offer(FULL, key=RoundKey(f.other("genesis"), 0, 0, 1))),
    ),
    "another organisation": (Reason.WRONG_ROUND, lambda: reply(offer(FULL, by="coding"))),
    "another lane": (Reason.WRONG_ROUND, lambda: reply(offer(FULL, key=RoundKey(GENESIS.digest, 1, 0, 1)))),
    "another generation": (Reason.WRONG_ROUND, lambda: reply(offer(FULL, key=RoundKey(GENESIS.digest, 0, 1, 1)))),
    "another round": (Reason.WRONG_ROUND, lambda: reply(offer(FULL, key=RoundKey(GENESIS.digest, 0, 0, 2)))),
    "too many steps": (Reason.BID_OUT_OF_RANGE, lambda: reply(offer(Bid(26, 2)))),
    "no rank": (Reason.BID_OUT_OF_RANGE, lambda: reply(offer(Bid(25, 0)))),
}


@pytest.mark.parametrize("what", REJECTED)
def test_any_other_answer_is_rejected_with_its_own_reason(what: str) -> None:
    reason, make = REJECTED[what]
    with pytest.raises(RejectedError) as caught:
        offer_in(make(), GENESIS, MEDICAL, KEY)
    assert caught.value.reason is reason


# --- bids of a whole round -----------------------------------------------------------------------------------------


def closed(folder: Path, **metrics: dict[str, float]) -> Rounds:
    """A run after round 1, to which each of these organisations replied with its own metrics."""
    federation = Federation.create(folder, NAMES, rounds=3, policy="q-learning", local_steps=2)
    rounds = federation.rounds()
    rounds.begin(1)
    for name, own in metrics.items():
        to = Recipient(0, f.address(name))
        task = rounds.task(to, Composition.of(rounds.lanes[0].state))
        rounds.admit(to, Reply.from_content(answer(task, metrics=own)))
    rounds.close(1)
    return rounds


def next_bid(bid: Bid) -> dict[str, float]:
    return {"next-steps": float(bid.steps), "next-rank": float(bid.rank)}


def test_a_bid_comes_in_the_signed_manifest_of_the_last_round(tmp_path: Path) -> None:
    rounds = closed(tmp_path, medical=next_bid(FULL), coding=next_bid(ABSTAIN), financial={"loss": 1.0})
    assert rounds.bids(rounds.lanes[0]) == {MEDICAL: FULL, f.address("coding"): ABSTAIN}


def test_a_bid_out_of_range_in_a_manifest_abstains(tmp_path: Path) -> None:
    rounds = closed(tmp_path, medical=next_bid(Bid(3, 2)), coding=next_bid(Bid(2, 3)))
    assert set(rounds.bids(rounds.lanes[0]).values()) == {ABSTAIN}


def test_a_lane_without_rounds_has_no_bids(tmp_path: Path) -> None:
    rounds = Federation.create(tmp_path, NAMES).rounds()
    assert rounds.bids(rounds.lanes[0]) == {}


def sender(asked: list[str], content: RecordDict) -> Callable[[Iterable[Message]], Iterator[Message]]:
    """Every agent that is asked answers with this."""

    def send(messages: Iterable[Message]) -> Iterator[Message]:
        for number, message in enumerate(messages):
            query = OfferQuery.from_content(message.content)
            asked.append(name_of(query.organisation))
            message.metadata.__dict__["_message_id"] = str(number)
            yield Message(content, reply_to=message)

    return send


def test_only_agents_with_a_node_and_without_a_bid_are_asked_apart(tmp_path: Path) -> None:
    rounds, asked = closed(tmp_path, medical=next_bid(FULL)), list[str]()
    key = rounds.lanes[0].next_key(rounds.genesis)
    content = queries.offered(
        Offer(key.genesis, f.address("coding"), 0, 0, key.round, FULL).sign(f.key("coding"), rounds.genesis.chain)
    )
    offers = collect(rounds, 2, {MEDICAL: 1, f.address("coding"): 1}, sender(asked, content))
    assert asked == ["coding"]
    assert offers == {0: [queries.offer_of(content)]}
    assert rounds.bids(rounds.lanes[0], offers[0]) == {MEDICAL: FULL, f.address("coding"): FULL}


def test_a_rejected_bid_abstains_and_the_event_log_says_why(tmp_path: Path) -> None:
    rounds = closed(tmp_path, medical=next_bid(FULL))
    assert collect(rounds, 2, {f.address("coding"): 1}, sender([], RecordDict())) == {0: []}
    events, _ = rounds.events.read(rounds.events.path)
    (rejected,) = (event for event in events if event["event"] == "bid-rejected")
    assert rejected["reason"].startswith("malformed: ")
    (told,) = (event for event in events if event["event"] == "bids")
    assert told["bids"] == {MEDICAL: {"steps": 2, "rank": 2}, f.address("coding"): {"steps": 0, "rank": 0}}
