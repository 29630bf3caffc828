"""Policies that choose whom a lane asks in a round, and for how much: the baselines, and consulting the agents.

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
own. A policy is a pure function of what is on record: a run that is resumed goes on alike. Its draws are tickets
H(seed, address, round): nobody's draw shifts when another leaves. Whoever was never asked counts as best.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from core import seeds
from core.canonical import Address
from core.rounds import RoundRecord
from core.update import Bid


@dataclass(frozen=True)
class Observation:
    """What a round showed of an organisation that took part: mean training loss in nats, seconds, credit in nats."""

    loss: float
    seconds: float
    credit: float


@dataclass(frozen=True)
class SelectionContext:
    """Whom to ask in round `number` of a lane.

    `full` is what the federation would have of everyone, `examples` are the registered counts n_k, `history` holds what
    each earlier round showed of those who took part, `bids` what the agents offer (those who abstain are missing).
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
        """How many to ask: the fraction of the lane, rounded up, but a quorum at least."""
        return min(len(self.members), max(self.quorum, math.ceil(self.fraction * len(self.members))))

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
        """The last round that each organisation took part in, and what it showed."""
        return {a: (number, past) for number, pasts in enumerate(self.history, 1) for a, past in pasts.items()}


def observations_of(record: RoundRecord, credit: Mapping[Address, float] | None = None) -> dict[Address, Observation]:
    """What a round's record shows of those it admitted; what is not reported or measured counts as 0."""
    metrics = {admitted.organisation: admitted.signed.value.metrics for admitted in record.admitted}
    credit = credit or {}
    return {
        a: Observation(float(m.get("loss", 0.0)), float(m.get("seconds", 0.0)), credit.get(a, 0.0))
        for a, m in metrics.items()
    }


Policy = Callable[[SelectionContext], dict[Address, Bid]]
"""Who is asked, in the lane's order, and the bid that each is asked to keep."""


def everyone(question: SelectionContext) -> dict[Address, Bid]:
    """All of the lane."""
    return dict.fromkeys(question.members, question.full)


def random(question: SelectionContext) -> dict[Address, Bid]:
    """Those whose ticket is below the fraction; a quorum of the lowest when they are fewer."""
    q = question
    return _in_full(q, seeds.drawn(q.seed, q.members, q.number, q.fraction, q.quorum))


def round_robin(question: SelectionContext) -> dict[Address, Bid]:
    """The next `count` of the list."""
    members, first = question.members, (question.number - 1) * question.count
    return _in_full(question, [members[(first + i) % len(members)] for i in range(question.count)])


def greedy(question: SelectionContext) -> dict[Address, Bid]:
    """The `count` with most registered examples."""
    examples = question.examples
    return _in_full(question, sorted(question.members, key=lambda a: (-examples[a], a))[: question.count])


def power_of_choice(question: SelectionContext) -> dict[Address, Bid]:
    """Of twice as many as wanted, drawn in proportion to their data, those with the highest last loss."""
    weights = {a: float(question.examples[a]) for a in question.members}
    drawn, last = question.drawn(weights, 2 * question.count), question.last()
    losses = {a: last[a][1].loss if a in last else math.inf for a in drawn}
    return _in_full(question, sorted(drawn, key=lambda a: losses[a], reverse=True)[: question.count])


def ucb(question: SelectionContext) -> dict[Address, Bid]:
    """The highest mean reward + √(2 ln t / n); a reward is the credit over the round's highest, at least 0."""
    rewards: dict[Address, list[float]] = {a: [] for a in question.members}
    for pasts in question.history:
        most = max((past.credit for past in pasts.values()), default=0.0)
        for a, past in pasts.items():
            if a in rewards:
                rewards[a].append(max(past.credit, 0.0) / most if most > 0 else 0.0)
    plays = sum(map(len, rewards.values()))
    bounds = {a: _mean(r) + math.sqrt(2 * math.log(plays) / len(r)) if r else math.inf for a, r in rewards.items()}
    order = sorted(question.members, key=lambda a: (-bounds[a], question.ticket(a)))
    return _in_full(question, order[: question.count])


def oort(question: SelectionContext) -> dict[Address, Bid]:
    """Exploit organisations of high utility, explore new ones; see `_Oort`."""
    return _in_full(question, _Oort(question).selected())


def q_learning(question: SelectionContext) -> dict[Address, Bid]:
    """Those whose agents bid; when they are fewer than the quorum, the lowest tickets of the others at a quarter."""
    bids = {a: question.bids[a] for a in question.members if a in question.bids}
    others = sorted((a for a in question.members if a not in bids), key=question.ticket)
    least = Bid(max(1, round(question.full.steps / 4)), max(1, question.full.rank // 2))
    bids |= dict.fromkeys(others[: max(0, question.quorum - len(bids))], least)
    return {a: bids[a] for a in question.members if a in bids}


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


_EXPLORE, _EXPLORE_DECAY, _EXPLORE_LEAST = 0.9, 0.98, 0.2
_CUT_OFF = 0.95
_CLIP = 0.95
_PENALTY = 2.0
_WINDOW = 5


class _Oort:
    """Oort's utility, pacer and selection, with the paper's constants, worked out from the history.

    Util(k) = [n_k · loss_k, clipped at the 95th percentile, + √(0.1 ln R / L_k)] · (T / t_k)² if t_k > T. For loss_k
    the paper has √(mean of squared sample losses), which do not leave an organisation. L_k is the last round it took
    part in, t_k how long that took. Utilities are scaled to a range of one before uncertainty is added, as the paper's
    code does. T starts at the median duration of the first round and grows by it whenever the utility of the last five
    rounds fell below that of the five before.
    """

    def __init__(self, question: SelectionContext) -> None:
        self.question = question
        self.last = {a: found for a, found in question.last().items() if a in question.members}

    def selected(self) -> list[Address]:
        """Those who are asked."""
        question = self.question
        epsilon = max(_EXPLORE_LEAST, _EXPLORE * _EXPLORE_DECAY ** (question.number - 1))
        new = [a for a in question.members if a not in self.last]
        explored = min(len(new), round(epsilon * question.count))
        exploited = min(len(self.last), question.count - explored)
        chosen = self._exploited(exploited)
        return chosen + sorted(new, key=question.ticket)[: question.count - len(chosen)]

    def _exploited(self, count: int) -> list[Address]:
        """Draw by utility among those above the cut-off, 95 % of the count-th best utility."""
        if count == 0:
            return []
        utilities = self._utilities()
        best = sorted(utilities.values(), reverse=True)
        above = {a: max(u, 1e-9) for a, u in utilities.items() if u >= _CUT_OFF * best[count - 1]}
        return self.question.drawn(above, count)

    def _utilities(self) -> dict[Address, float]:
        raw = {a: self._statistical(a, past) for a, (_, past) in self.last.items()}
        clip = sorted(raw.values())[min(len(raw) - 1, int(_CLIP * len(raw)))]
        lowest = min(raw.values())
        width = (clip - lowest) or 1.0
        preferred, number = self._preferred(), self.question.number
        utilities = {}
        for a, (seen, past) in self.last.items():
            scaled = (min(raw[a], clip) - lowest) / width + math.sqrt(0.1 * math.log(number) / seen)
            slow = past.seconds > preferred
            utilities[a] = scaled * (preferred / past.seconds) ** _PENALTY if slow else scaled
        return utilities

    def _statistical(self, organisation: Address, past: Observation) -> float:
        return self.question.examples[organisation] * past.loss

    def _preferred(self) -> float:
        """The duration T that the pacer prefers now."""
        history = self.question.history
        step = _median([past.seconds for past in next((pasts for pasts in history if pasts), {}).values()])
        gained = [sum(self.question.examples.get(a, 0) * p.loss for a, p in pasts.items()) for pasts in history]
        preferred = step
        for end in range(2 * _WINDOW, len(gained) + 1, _WINDOW):
            if sum(gained[end - 2 * _WINDOW : end - _WINDOW]) > sum(gained[end - _WINDOW : end]):
                preferred += step
        return preferred


def _in_full(question: SelectionContext, chosen: Sequence[Address]) -> dict[Address, Bid]:
    """The chosen, in the lane's order, at the federation's own steps and rank."""
    found = set(chosen)
    return {a: question.full for a in question.members if a in found}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2] if values else math.inf
