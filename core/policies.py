"""Policies: the organisations that a lane asks in a round, and for how much; the baselines, and the agents' own bids.

    all              everyone, always
    random           whose ticket is below the fraction
    round-robin      the next of the list
    greedy           those with most data
    power-of-choice  of some drawn by their data those with the highest loss: Cho et al., 2020, arXiv 2010.01243, in its
                     variant without extra messages (rpow-d), which takes the loss of an organisation's last round
    ucb              credit as the reward of a bandit's arm: UCB1, Auer et al., 2002, figure 1
    oort             Oort: Lai et al., OSDI 2021, algorithm 1, with a round's training loss for the losses of samples
    q-learning       those whose agents bid

Each asks for a share of the lane, the run's `fraction`, and for a quorum at least; `all` and `q-learning` set their
own. A policy is a pure function of the records: a run that is resumed goes on alike. Its draws are tickets
H(seed, address, round): nobody's draw shifts when another leaves. An organisation never asked counts as best.

A round that stayed below its quorum is tried again with those that answered, and with others of the lane in place of
those that did not: asking the same ones again would leave a run at the mercy of one that is gone.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low

from core import seeds
from core.canonical import Address
from core.genesis import Genesis, Participation
from core.rejections import Reason
from core.rounds import RoundRecord
from core.update import ABSTAIN, Bid, Offer


@dataclass(frozen=True)
class Observation:
    """An organisation's part in a round: mean training loss in nats, bounded; seconds; credit in nats."""

    loss: float
    seconds: float
    credit: float


@dataclass(frozen=True)
class SelectionContext:
    """The facts on which a policy selects organisations for round `number` of a lane.

    `full` is the federation's own steps and rank, `examples` are the registered counts n_k, `history` holds the
    observations of each earlier round, `bids` the agents' offers (an agent that abstains has none).
    """

    seed: int
    members: Sequence[Address]
    number: int
    full: Bid
    fraction: float = 1.0
    quorum: int = 1
    examples: Mapping[Address, int] = field(default_factory=dict)
    history: Sequence[Mapping[Address, Observation]] = ()
    bids: Mapping[Address, Bid] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number to ask."""
        return share(self.fraction, self.quorum, len(self.members))

    def ticket(self, organisation: Address) -> float:
        """An organisation's draw for this round, in [0, 1)."""
        return seeds.ticket(self.seed, organisation, self.number)

    def drawn(self, weights: Mapping[Address, float], count: int) -> list[Address]:
        """Draw without replacement in proportion to the weights.

        The largest of u^(1/w): Efraimidis and Spirakis, 2006, algorithm A.
        """
        keys = {a: math.log(max(self.ticket(a), 1e-300)) / w if w > 0 else -math.inf for a, w in weights.items()}
        return sorted(keys, key=lambda a: keys[a], reverse=True)[:count]

    def last(self) -> dict[Address, tuple[int, Observation]]:
        """The last round that each organisation took part in, and its observation."""
        return {a: (number, past) for number, pasts in enumerate(self.history, 1) for a, past in pasts.items()}


def share(fraction: float, quorum: int, members: int) -> int:
    """How many of a lane are asked: the fraction, rounded up, but a quorum at least."""
    return min(members, max(quorum, math.ceil(fraction * members)))


def most_asked(participation: Participation, members: int) -> int:
    """The most organisations of a lane of so many that one round asks."""
    if participation.policy in _WITHOUT_A_NUMBER:
        return members
    return share(participation.fraction, participation.quorum, members)


def observations_of(record: RoundRecord, credit: Mapping[Address, float] | None = None) -> dict[Address, Observation]:
    """The observations of the organisations that a record admitted; a missing figure counts as 0.

    Nobody steers its own selection: a loss that an organisation reports counts up to the bound that the coordinator
    measured, and seconds are by the coordinator's clock.
    """
    credit = credit or {}
    return {
        a.organisation: Observation(
            min(max(float(a.signed.value.metrics.get("loss", 0.0)), 0.0), record.loss_bound),
            a.seconds,
            credit.get(a.organisation, 0.0),
        )
        for a in record.admitted
    }


def bids_for(
    genesis: Genesis, head: RoundRecord | None, offers: Iterable[Offer], members: Sequence[Address]
) -> dict[Address, Bid]:
    """The members' bids for the round after `head`: in its manifests, else in offers; one out of range abstains."""
    bids: dict[Address, Bid] = {}
    for manifest in (admitted.signed.value for admitted in (head.admitted if head else ())):
        if "next-steps" in manifest.metrics:
            steps, rank = (int(manifest.metrics.get(f"next-{part}", 0)) for part in ("steps", "rank"))
            bids[manifest.organisation] = Bid(steps, rank)
    for offer in offers:
        bids.setdefault(offer.organisation, offer.bid)
    return {a: bid if bid.within(genesis.full_bid) else ABSTAIN for a, bid in bids.items() if a in members}


def selected(
    genesis: Genesis,
    members: Sequence[Address],
    number: int,
    history: Sequence[Mapping[Address, Observation]],
    bids: Mapping[Address, Bid],
    failed: Iterable[RoundRecord] = (),
) -> dict[Address, Bid]:
    """The organisations that a federation's policy asks in a lane's round, each with its bid; a function of records.

    `failed` are the attempts at the round so far, in order, all of them below the quorum.
    """
    context = SelectionContext(
        seed=genesis.seed,
        members=members,
        number=number,
        full=genesis.full_bid,
        fraction=genesis.participation.fraction,
        quorum=genesis.participation.quorum,
        examples=genesis.examples,
        history=history,
        bids={organisation: bid for organisation, bid in bids.items() if bid != ABSTAIN},
    )
    policy = genesis.policy(number)
    spare = _least(context) if policy == "q-learning" else context.full
    return _tried_again(context, POLICIES[policy](context), failed, spare)


def never_asked(genesis: Genesis) -> list[Address]:
    """Members that no round of a new federation asks at first, in order of address.

    Only under policies that do not read earlier rounds: under others nobody knows yet.
    """
    rounds, policy = range(1, genesis.training.rounds + 1), genesis.participation.policy
    unasked = set(genesis.examples) if policy not in BY_HISTORY else set()
    for members in genesis.lanes:
        for number in rounds:
            if unasked.isdisjoint(members):
                break  # a federation may have a hundred thousand rounds
            unasked -= selected(genesis, members, number, (), {}).keys()
    return [address for address in genesis.examples if address in unasked]


READ_LOSSES, READ_SECONDS = ("power-of-choice", "oort"), ("oort",)
"""The policies that read the organisations' losses, and how long they took."""
BY_HISTORY = (*READ_LOSSES, "ucb", "q-learning")
"""The policies that read earlier rounds."""

_WITHOUT_A_NUMBER = ("all", "random", "q-learning")
"""The policies that may ask a whole lane, whatever the fraction."""

_EXPLORE, _EXPLORE_DECAY, _EXPLORE_LEAST = 0.9, 0.98, 0.2
_CUT_OFF = 0.95
_CLIP = 0.95
_PENALTY = 2.0
_WINDOW = 5
"""The constants of Oort's paper; the window is in rounds."""

Policy = Callable[[SelectionContext], dict[Address, Bid]]
"""The organisations to ask, in the lane's order, each with the bid that it is asked to keep."""


def everyone(context: SelectionContext) -> dict[Address, Bid]:
    """All of the lane."""
    return dict.fromkeys(context.members, context.full)


def random(context: SelectionContext) -> dict[Address, Bid]:
    """Those whose ticket is below the fraction; a quorum of the lowest when they are fewer."""
    c = context
    return _in_full(c, seeds.drawn(c.seed, c.members, c.number, c.fraction, c.quorum))


def round_robin(context: SelectionContext) -> dict[Address, Bid]:
    """The next `count` of the list."""
    members, first = context.members, (context.number - 1) * context.count
    return _in_full(context, [members[(first + i) % len(members)] for i in range(context.count)])


def greedy(context: SelectionContext) -> dict[Address, Bid]:
    """The `count` with most registered examples."""
    examples = context.examples
    return _in_full(context, sorted(context.members, key=lambda a: (-examples[a], a))[: context.count])


def power_of_choice(context: SelectionContext) -> dict[Address, Bid]:
    """Of twice `count`, drawn in proportion to their data, those with the highest last loss."""
    weights = {a: float(context.examples[a]) for a in context.members}
    drawn, last = context.drawn(weights, 2 * context.count), context.last()
    losses = {a: last[a][1].loss if a in last else math.inf for a in drawn}
    return _in_full(context, sorted(drawn, key=lambda a: losses[a], reverse=True)[: context.count])


def ucb(context: SelectionContext) -> dict[Address, Bid]:
    """The highest mean reward + √(2 ln t / n); a reward is the credit over the round's highest, at least 0."""
    rewards: dict[Address, list[float]] = {a: [] for a in context.members}
    for pasts in context.history:
        # UCB1 is for rewards in [0, 1]: credit in nats is scaled by the round's highest.
        most = max((past.credit for past in pasts.values()), default=0.0)
        for a, past in pasts.items():
            if a in rewards:
                rewards[a].append(max(past.credit, 0.0) / most if most > 0 else 0.0)
    plays = sum(map(len, rewards.values()))
    bounds = {
        a: sum(r) / len(r) + math.sqrt(2 * math.log(plays) / len(r)) if r else math.inf for a, r in rewards.items()
    }
    order = sorted(context.members, key=lambda a: (-bounds[a], context.ticket(a)))
    return _in_full(context, order[: context.count])


def oort(context: SelectionContext) -> dict[Address, Bid]:
    """Exploit organisations of high utility, explore new ones; see `_Oort`."""
    return _in_full(context, _Oort(context).selected())


def q_learning(context: SelectionContext) -> dict[Address, Bid]:
    """Those whose agents bid; when they are fewer than the quorum, the lowest tickets of the others at a quarter."""
    bids = {a: context.bids[a] for a in context.members if a in context.bids}
    others = sorted((a for a in context.members if a not in bids), key=context.ticket)
    bids |= dict.fromkeys(others[: max(0, context.quorum - len(bids))], _least(context))
    return {a: bids[a] for a in context.members if a in bids}


POLICIES: dict[str, Policy] = {
    "all": everyone,
    "random": random,
    "round-robin": round_robin,
    "greedy": greedy,
    "power-of-choice": power_of_choice,
    "oort": oort,
    "ucb": ucb,
    "q-learning": q_learning,
}
"""Those that a run can choose."""


class _Oort:
    """Oort's utility, pacer and selection, with the paper's constants, worked out from the history.

    Util(k) = [n_k · loss_k, clipped at the 95th percentile, + √(0.1 ln R / L_k)] · (T / t_k)² if t_k > T. For loss_k
    the paper has √(mean of squared sample losses), which do not leave an organisation. L_k is the last round it took
    part in, t_k how long that took. Utilities are scaled to a range of one before uncertainty is added, as the paper's
    code does. T starts at the median duration of the first round and grows by it whenever the utility of the last five
    rounds fell below that of the five before.
    """

    def __init__(self, context: SelectionContext) -> None:
        self.context = context
        self.last = {a: last for a, last in context.last().items() if a in context.members}

    def selected(self) -> list[Address]:
        """The organisations to ask."""
        context = self.context
        epsilon = max(_EXPLORE_LEAST, _EXPLORE * _EXPLORE_DECAY ** (context.number - 1))
        new = [a for a in context.members if a not in self.last]
        explored = min(len(new), round(epsilon * context.count))
        exploited = min(len(self.last), context.count - explored)
        chosen: list[Address] = []
        if exploited:
            utilities = self.utilities()
            cut_off = _CUT_OFF * sorted(utilities.values(), reverse=True)[exploited - 1]
            # A utility may be 0 or less, but a weight of a draw may not: every one above the cut-off can be drawn.
            chosen = context.drawn({a: max(u, 1e-9) for a, u in utilities.items() if u >= cut_off}, exploited)
        return chosen + sorted(new, key=context.ticket)[: context.count - len(chosen)]

    def utilities(self) -> dict[Address, float]:
        """Util(k) of every organisation that took part before."""
        raw = {a: self.context.examples[a] * past.loss for a, (_, past) in self.last.items()}
        clip = sorted(raw.values())[min(len(raw) - 1, int(_CLIP * len(raw)))]
        lowest = min(raw.values())
        width = (clip - lowest) or 1.0
        preferred, number = self.preferred(), self.context.number
        utilities = {}
        for a, (seen, past) in self.last.items():
            scaled = (min(raw[a], clip) - lowest) / width + math.sqrt(0.1 * math.log(number) / seen)
            slow = past.seconds > preferred
            utilities[a] = scaled * (preferred / past.seconds) ** _PENALTY if slow else scaled
        return utilities

    def preferred(self) -> float:
        """The duration T that the pacer prefers now."""
        history = self.context.history
        first = [past.seconds for past in next((pasts for pasts in history if pasts), {}).values()]
        step = median_low(first) if first else math.inf
        gained = [sum(self.context.examples.get(a, 0) * p.loss for a, p in pasts.items()) for pasts in history]
        preferred = step
        for end in range(2 * _WINDOW, len(gained) + 1, _WINDOW):
            if sum(gained[end - 2 * _WINDOW : end - _WINDOW]) > sum(gained[end - _WINDOW : end]):
                preferred += step
        return preferred


def _tried_again(
    context: SelectionContext, asked: Mapping[Address, Bid], failed: Iterable[RoundRecord], spare: Bid
) -> dict[Address, Bid]:
    """Whom a round asks after these attempts: as many as the policy, those first that missed fewest of them.

    Without a bid of its own an organisation is asked for the `spare` one.
    """
    asked, missed = dict(asked), Counter[Address]()
    for record in failed:
        answered = {r.organisation for r in record.rejected if r.reason == Reason.BELOW_QUORUM} & asked.keys()
        missed.update(asked.keys() - answered)
        # From behind the last that was asked, so that each of the lane has its turn to stand in for another.
        after = context.members.index(list(asked)[-1]) + 1
        order = [*context.members[after:], *context.members[:after]]
        others = sorted((a for a in order if a not in answered), key=lambda a: missed[a])
        chosen = answered.union(others[: len(asked) - len(answered)])
        asked = {a: asked.get(a) or context.bids.get(a, spare) for a in context.members if a in chosen}
    return asked


def _least(context: SelectionContext) -> Bid:
    """The bid at which an organisation is asked that made none."""
    return Bid(max(1, round(context.full.steps / 4)), max(1, context.full.rank // 2))


def _in_full(context: SelectionContext, chosen: Sequence[Address]) -> dict[Address, Bid]:
    """The chosen, in the lane's order, at the federation's own steps and rank."""
    members = set(chosen)
    return {a: context.full for a in context.members if a in members}
