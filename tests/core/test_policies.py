"""Who is asked in a round."""

from dataclasses import replace
from itertools import combinations, pairwise

import pytest

from core import policies
from core.canonical import Address
from core.genesis import Participation
from core.policies import (
    POLICIES,
    Observation,
    Policy,
    SelectionContext,
    everyone,
    observations_of,
    random,
    selected,
)
from core.rejections import Reason
from core.rounds import Rejection
from core.signed import Signed
from core.update import Bid
from tests import federation as f

GENESIS = f.genesis()
LANE = GENESIS.lanes[0]
FULL = Bid(25, 2)
MANY = tuple(Address(f"0x{index:040x}") for index in range(1, 33))
CHOOSING = ("random", "round-robin", "greedy", "power-of-choice", "oort", "ucb")
EVERY: dict[str, Policy] = POLICIES


def context(
    number: int = 1, fraction: float = 1.0, quorum: int = 1, members: tuple[Address, ...] = LANE
) -> SelectionContext:
    examples = {o.address: o.examples for o in GENESIS.organisations}
    examples |= {address: 10 + 7 * index for index, address in enumerate(MANY)}
    return SelectionContext(f.SEED, members, number, FULL, fraction, quorum, examples)


def drawing(number: int, fraction: float, quorum: int = 1, members: tuple[Address, ...] = LANE) -> list[Address]:
    return list(random(context(number, fraction, quorum, members)))


def past(policy: Policy, rounds: int, shows: dict[Address, Observation], fraction: float = 0.25) -> SelectionContext:
    """The context after so many rounds of a policy, in which each organisation always shows the same."""
    asked = context(1, fraction, members=tuple(shows))
    for number in range(1, rounds + 1):
        chosen = policy(replace(asked, number=number))
        asked = replace(asked, history=(*asked.history, {a: shows[a] for a in chosen}))
    return replace(asked, number=rounds + 1)


def test_everyone_is_everyone_in_the_lanes_order() -> None:
    assert list(everyone(context())) == list(LANE)


def test_a_draw_keeps_the_lanes_order_and_repeats() -> None:
    drawn = drawing(3, 0.5)
    assert drawn == [address for address in LANE if address in drawn]
    assert drawn == drawing(3, 0.5)


def test_a_fraction_of_one_draws_all() -> None:
    assert all(drawing(number, 1.0) == list(LANE) for number in range(1, 20))


def test_the_share_drawn_is_the_fraction() -> None:
    drawn = sum(len(drawing(number, 0.5)) for number in range(500))
    assert 0.45 < drawn / (500 * len(LANE)) < 0.57  # a little above one half: nobody is never drawn


def test_one_is_drawn_at_least() -> None:
    draws = [drawing(number, 1e-9) for number in range(50)]
    assert all(len(drawn) == 1 for drawn in draws)
    assert len({drawn[0] for drawn in draws}) > 1


@pytest.mark.parametrize("quorum", [1, 2, 3, 4, 9])
def test_a_quorum_is_drawn_at_least_so_that_no_round_is_lost_from_the_start(quorum: int) -> None:
    for number in range(50):
        assert len(drawing(number, 1e-9, quorum)) == min(quorum, 4)
        enough = drawing(number, 0.5)
        if len(enough) >= quorum:
            assert drawing(number, 0.5, quorum) == enough


@pytest.mark.parametrize("gone", range(4))
def test_a_draw_does_not_shift_when_someone_leaves(gone: int) -> None:
    rest = tuple(address for index, address in enumerate(LANE) if index != gone)
    for number in range(1, 100):
        before = drawing(number, 0.5)
        if remaining := [address for address in before if address in rest]:
            assert drawing(number, 0.5, members=rest) == remaining


@pytest.mark.parametrize("name", [name for name in CHOOSING if name != "random"])
@pytest.mark.parametrize(("fraction", "quorum", "wanted"), [(0.25, 1, 8), (0.26, 1, 9), (0.01, 3, 3), (1.0, 1, 32)])
def test_a_share_of_the_lane_is_asked_in_its_order_at_full_effort(
    name: str, fraction: float, quorum: int, wanted: int
) -> None:
    shows = {a: Observation(2.0 + index / 10, 1.0 + index, 0.1) for index, a in enumerate(MANY)}
    asked = replace(past(EVERY[name], 6, shows, fraction), quorum=quorum)
    chosen = EVERY[name](asked)
    assert len(chosen) == wanted
    assert list(chosen) == [a for a in MANY if a in chosen]
    assert set(chosen.values()) == {FULL}
    assert chosen == EVERY[name](asked)


@pytest.mark.parametrize("name", sorted(policies.POLICIES))
def test_no_round_asks_more_than_the_most(name: str) -> None:
    participation = Participation(name, 0.3, 2, 3)
    most = policies.most_asked(participation, len(MANY))
    assert most == (len(MANY) if name in ("all", "random", "q-learning") else 10)
    shows = {a: Observation(2.0, 1.0, 0.1) for a in MANY}
    for number in range(1, 9):
        asked = replace(past(policies.POLICIES[name], number, shows, 0.3), quorum=2, bids=dict.fromkeys(MANY, FULL))
        assert len(policies.POLICIES[name](asked)) <= most


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_policy_asks_someone_when_nothing_is_on_record(name: str) -> None:
    assert EVERY[name](context(1, 0.5))


def test_round_robin_asks_everyone_equally_often() -> None:
    chosen = [a for number in range(1, 9) for a in policies.round_robin(context(number, 0.25, members=MANY))]
    assert sorted(chosen) == sorted(MANY * 2)


def test_greedy_asks_those_with_most_data() -> None:
    assert list(policies.greedy(context(3, 0.25, members=MANY))) == list(MANY[-8:])


def test_power_of_choice_asks_those_of_the_highest_loss_among_the_drawn() -> None:
    shows = {a: Observation(1.0 + index, 1.0, 0.0) for index, a in enumerate(MANY)}
    asked = past(everyone, 1, shows)
    counts = dict.fromkeys(MANY, 0)
    for number in range(2, 202):
        for a in policies.power_of_choice(replace(asked, number=number)):
            counts[a] += 1
    low, high = sum(counts[a] for a in MANY[:16]), sum(counts[a] for a in MANY[16:])
    assert high > 4 * low
    assert counts[MANY[31]] > counts[MANY[16]]


def test_ucb_comes_back_to_whom_it_pays_to_ask_and_forgets_nobody() -> None:
    shows = {a: Observation(1.0, 1.0, 1.0 if index < 4 else 0.0) for index, a in enumerate(MANY[:16])}
    history = past(policies.ucb, 60, shows).history
    counts = {a: sum(a in pasts for pasts in history) for a in shows}
    assert min(counts[a] for a in MANY[:4]) > 2 * max(counts[a] for a in MANY[4:16])
    assert min(counts.values()) >= 2


def test_oort_prefers_high_loss_and_much_data() -> None:
    shows = {a: Observation(4.0 if index % 2 else 1.0, 1.0, 0.0) for index, a in enumerate(MANY)}
    history = past(policies.oort, 60, shows).history[30:]
    odd, even = (sum(a in pasts for pasts in history for a in MANY[first::2]) for first in (1, 0))
    assert odd > 1.5 * even


def test_oort_penalises_the_slow() -> None:
    shows = {a: Observation(2.0, 50.0 if index % 2 else 1.0, 0.0) for index, a in enumerate(MANY)}
    history = past(policies.oort, 60, shows).history[30:]
    slow, fast = (sum(a in pasts for pasts in history for a in MANY[first::2]) for first in (1, 0))
    assert fast > 1.5 * slow


def test_oorts_pacer_waits_longer_once_utility_falls() -> None:
    falling = tuple({a: Observation(8.0 / number, 3.0, 0.0) for a in LANE} for number in range(1, 21))
    rising = tuple({a: Observation(1.0 * number, 3.0, 0.0) for a in LANE} for number in range(1, 21))
    preferred = [policies._Oort(replace(context(21), history=h)).preferred() for h in (falling, rising)]
    assert preferred == [12.0, 3.0]


def test_oort_explores_less_and_less() -> None:
    shows = {a: Observation(2.0, 1.0, 0.0) for a in MANY}
    history = past(policies.oort, 40, shows).history
    firsts = [set(pasts) - {a for earlier in history[:i] for a in earlier} for i, pasts in enumerate(history)]
    assert len(firsts[0]) == 8
    assert sum(map(len, firsts)) == 32  # everyone was explored
    assert len(firsts[1]) == 7  # round(0.9 · 0.98 · 8)


def test_the_agents_bids_decide_and_a_quorum_of_the_others_is_drafted() -> None:
    bids = {LANE[0]: Bid(10, 1), LANE[2]: FULL}
    asked = replace(context(), bids=bids)
    assert policies.q_learning(asked) == bids
    drafted = policies.q_learning(replace(asked, quorum=3))
    assert len(drafted) == 3
    assert {a: drafted[a] for a in bids} == bids
    assert [drafted[a] for a in drafted if a not in bids] == [Bid(6, 1)]
    drafts = [next(iter(policies.q_learning(replace(asked, bids={}, number=n)))) for n in range(1, 30)]
    assert any(one != other for one, other in pairwise(drafts))


def reported(loss: float, bound: float) -> set[Observation]:
    """What a record shows of organisations that report this loss and a billion seconds, after 3 seconds."""
    record = f.record(GENESIS, loss_bound=bound)
    manifests = [replace(a.signed.value, metrics={"loss": loss, "seconds": 1e9}) for a in record.admitted]
    signed = [Signed(manifest, ()) for manifest in manifests]
    admitted = tuple(replace(a, signed=s, seconds=3.0) for a, s in zip(record.admitted, signed, strict=True))
    found = observations_of(replace(record, admitted=admitted))
    assert set(found) == {f.address("medical"), f.address("coding")}
    return set(found.values())


def test_a_loss_that_is_reported_counts_up_to_what_was_measured_and_seconds_are_measured() -> None:
    assert reported(2.5, bound=4.0) == {Observation(2.5, 3.0, 0.0)}
    assert reported(1.7e308, bound=4.0) == {Observation(4.0, 3.0, 0.0)}
    assert reported(-1.7e308, bound=4.0) == {Observation(0.0, 3.0, 0.0)}
    assert reported(2.5, bound=0.0) == {Observation(0.0, 3.0, 0.0)}


def test_policies_are_found_under_their_settings() -> None:
    assert set(POLICIES) == {*CHOOSING, "all", "q-learning"}


# --- a round that is tried again -------------------------------------------------------------------------------------


def attempts(policy: str, count: int, alive: set[Address]) -> list[set[Address]]:
    """Whom a policy asks in so many attempts at a round of four, of which it asks two and needs two."""
    genesis, failed, asked = f.genesis(participation=Participation(policy, 0.5, 2, 9)), [], []
    for _ in range(count):
        chosen = selected(genesis, LANE, 1, (), {}, failed)
        assert list(chosen) == [a for a in LANE if a in chosen]
        asked.append(set(chosen))
        reasons = {a: Reason.BELOW_QUORUM if a in alive else Reason.NO_REPLY for a in chosen}
        rejected = tuple(Rejection(a, reason, "") for a, reason in reasons.items())
        failed.append(f.record(genesis, rejected=rejected, admitted=()))
    return asked


@pytest.mark.parametrize("policy", CHOOSING)
def test_a_round_is_tried_again_with_those_that_answered_and_others_for_the_silent(policy: str) -> None:
    (first,) = attempts(policy, 1, set(LANE))
    gone = min(first)
    assert attempts(policy, 2, set(LANE) - {gone})[1] >= first - {gone}
    assert gone not in attempts(policy, 2, set(LANE) - {gone})[1]


@pytest.mark.parametrize("policy", CHOOSING)
@pytest.mark.parametrize("alive", list(combinations(LANE, 2)))
def test_two_that_are_there_are_found_wherever_they_stand(policy: str, alive: tuple[Address, ...]) -> None:
    asked = attempts(policy, 4, set(alive))
    assert any(chosen.issuperset(alive) for chosen in asked)
    assert all(len(chosen) == len(asked[0]) for chosen in asked)


def test_the_silent_are_asked_again_once_all_have_been() -> None:
    asked = attempts("round-robin", 4, set())
    assert all(sum(a in chosen for chosen in asked) == 2 for a in LANE)


def test_a_policy_that_asks_all_asks_all_again() -> None:
    assert attempts("all", 3, set(LANE[1:])) == [set(LANE)] * 3
