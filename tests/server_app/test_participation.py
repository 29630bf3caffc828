"""Rounds that the organisations' agents bid for: who is asked, what is paid, what bad bids do."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict

from agents.credit import CreditedRound
from agents.rewards import Rewards
from core.canonical import Address
from core.credit import DomainCredit, RoundCredit
from core.messages import queries
from core.messages.queries import OfferQuery
from core.messages.refusal import Cause, Refusal, Refused
from core.update import ABSTAIN, Bid, Offer
from tests import federation as f
from tests.server_app.clients import Behaviour, Federation, TestGrid, answer, name_of

FULL = Bid(2, 2)
NAMES = ("medical", "coding", "financial")


def credited(done: CreditedRound) -> RoundCredit:
    """By examples: what a test can work out by hand."""
    credits = {u.organisation: float(f.EXAMPLES[name_of(u.organisation)]) for u in done.updates}
    return RoundCredit({"all": DomainCredit(sum(credits.values()), credits, 0.0, 0.0)})


def bidding(bid: Bid) -> Behaviour:
    """Reply, and bid for the next round."""
    return lambda task: answer(task, metrics={"loss": 1.0, "next-steps": bid.steps, "next-rank": bid.rank})


Answer = Callable[[OfferQuery], RecordDict]


def offering(bid: Bid, signer: str = "", **changes: Any) -> Answer:
    def give(query: OfferQuery) -> RecordDict:
        place = {"lane": query.lane, "generation": query.generation, "round": query.round} | changes
        offer = Offer(query.genesis.digest, query.organisation, bid=bid, **place)
        return queries.offered(offer.sign(f.key(signer or name_of(query.organisation)), query.genesis.chain))

    return give


def silent(_query: OfferQuery) -> RecordDict:
    raise RuntimeError("an agent that fails")


class World:
    """A federation whose clients bid; by default everybody bids to take part, asked or unasked."""

    def __init__(
        self, folder: Path, offers: Mapping[str, Answer], behave: Mapping[str, Behaviour], rounds: int = 2
    ) -> None:
        self.federation = Federation.create(folder, NAMES, rounds=rounds, policy="q-learning", local_steps=2)
        clients = self.federation.clients
        clients.behave = {name: bidding(FULL) for name in NAMES} | dict(behave)
        clients.offers = {name: offering(FULL) for name in NAMES} | dict(offers)
        self.rewards = Rewards(self.federation.run, 0.0, credited)
        self.federation.start(TestGrid(clients), rewards=self.rewards)

    @property
    def queried(self) -> list[tuple[int, str]]:
        return [(query.round, name_of(query.organisation)) for query in self.federation.clients.queried]

    @property
    def trained(self) -> list[set[str]]:
        asked = self.federation.clients.trained
        rounds = range(1, max(task.round for task in asked) + 1)
        return [{name_of(t.organisation) for t in asked if t.round == number} for number in rounds]

    def refused(self) -> list[tuple[int, str, str]]:
        events = self.federation.events_named("bid-rejected")
        return [(e["round"], name_of(e["organisation"]), e["reason"].split(":")[0]) for e in events]


def test_only_those_who_did_not_reply_are_asked_apart(tmp_path: Path) -> None:
    world = World(tmp_path, {"coding": offering(ABSTAIN)}, {}, rounds=3)
    assert sorted(world.queried) == [
        *sorted((1, name) for name in NAMES),
        (2, "coding"),
        (3, "coding"),
    ]
    assert world.trained == [{"medical", "financial"}] * 3


def test_the_bid_in_a_signed_manifest_decides_the_next_round(tmp_path: Path) -> None:
    world = World(tmp_path, {"medical": offering(FULL)}, {"medical": bidding(ABSTAIN)}, rounds=2)
    assert world.trained == [set(NAMES), {"coding", "financial"}]


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (offering(Bid(3, 2)), "bid-out-of-range"),
        (offering(Bid(0, 2)), "bid-out-of-range"),
        (offering(FULL, signer="financial"), "forged-signature"),
        (offering(FULL, round=7), "wrong-round"),
        (silent, "client-error"),
        (lambda query: RecordDict(), "malformed"),
        (lambda query: Refusal(Refused.ABSTAINED, Cause.AGENT).to_content(), "abstained"),
    ],
)
def test_a_bad_bid_abstains_for_the_round_and_the_round_goes_on(tmp_path: Path, offer: Answer, reason: str) -> None:
    world = World(tmp_path, {"coding": offer}, {}, rounds=1)
    assert world.refused() == [(1, "coding", reason)]
    assert world.trained == [{"medical", "financial"}]


def test_a_bid_out_of_range_in_a_manifest_abstains(tmp_path: Path) -> None:
    world = World(tmp_path, {}, {"coding": bidding(Bid(50, 2))}, rounds=2)
    assert world.trained == [set(NAMES), {"medical", "financial"}]


def test_too_few_bids_draft_a_quorum(tmp_path: Path) -> None:
    world = World(tmp_path, {name: offering(ABSTAIN) for name in NAMES}, {}, rounds=1)
    assert [len(names) for names in world.trained] == [1]


def test_everybody_is_told_what_earlier_rounds_paid(tmp_path: Path) -> None:
    world = World(tmp_path, {}, {}, rounds=3)
    total = sum(f.EXAMPLES[name] for name in NAMES)
    for task in world.federation.clients.trained:
        share = 3.0 * f.EXAMPLES[name_of(task.organisation)] / total
        assert task.paid == pytest.approx(dict.fromkeys(range(1, task.round), share))
    assert sum(world.rewards.cumulative().values()) == pytest.approx(9.0)


def test_credits_are_published_by_slice(tmp_path: Path) -> None:
    world = World(tmp_path, {}, {}, rounds=2)
    first, second = world.federation.events_named("credited")
    assert (first["round"], second["round"]) == (1, 2)
    assert set(first["domains"]["all"]["credits"]) == {f.address(name) for name in NAMES}


def test_a_resumed_run_knows_bids_and_credits_again(tmp_path: Path) -> None:
    world = World(tmp_path, {}, {"coding": bidding(ABSTAIN)}, rounds=2)
    paid: dict[Address, dict[int, float]] = {f.address(n): world.rewards.paid(0, f.address(n)) for n in NAMES}
    rewards = Rewards(world.federation.run, 0.0, credited)
    rounds = world.federation.rounds(rewards=rewards)
    assert {f.address(n): rewards.paid(0, f.address(n)) for n in NAMES} == paid
    assert rounds.bids(rounds.lanes[0]) == {f.address(n): FULL for n in ("medical", "financial")}


def test_offers_and_credit_stand_in_the_record(tmp_path: Path) -> None:
    world = World(tmp_path, {"coding": offering(ABSTAIN)}, {}, rounds=1)
    (record,) = (signed.value for signed in world.federation.run.records())
    assert {name_of(o.value.organisation): o.value.bid for o in record.bids} == dict.fromkeys(NAMES, FULL) | {
        "coding": ABSTAIN
    }
    assert world.federation.run.credit(record).credit.mean == {
        f.address(name): float(f.EXAMPLES[name]) for name in ("medical", "financial")
    }
