"""Evaluation: what is served after a round is measured by organisations, on their held-out records.

Those that a round asked are asked for it apart, once the round is closed; or with the next round's task, which then
shows them the same state to measure and to train: one message instead of two (`goes_with_task`). After the last round
it is all, or a sample of many.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from flwr.app import Message, MetricRecord

from core import seeds
from core.canonical import Address, Digest
from core.messages import training
from server_app.admission import read_reply
from server_app.rounds import Recipient, Rounds

MOST_MEASURING = 100
"""Organisations that measure what a round serves: the mean of more would cost more than the round, and tell no more."""


class RoundEvaluation:
    """What is served after a round, who is asked to measure it, and the losses that have come so far."""

    def __init__(self, rounds: Rounds, number: int) -> None:
        self.rounds, self.number, self.served = rounds, number, rounds.served
        self.asked = _asked(rounds, number)
        members = {member for lane in rounds.lanes for member in lane.members}
        self.everyone = members == {recipient.organisation for recipient in self.asked}
        """Whether all members are to measure it, or a sample of all."""
        if len(self.asked) > MOST_MEASURING:
            # Round 0 is nobody's, so that none is drawn for having trained last; and it is the same sample each time.
            organisations = [recipient.organisation for recipient in self.asked]
            sample = {*seeds.drawn(rounds.genesis.seed, organisations, 0, 0.0, MOST_MEASURING)}
            self.asked = [recipient for recipient in self.asked if recipient.organisation in sample]
        self.losses: dict[Address, dict[str, float]] = {}

    @property
    def of(self) -> tuple[int, Digest]:
        """The round, and the digest of what is served."""
        return self.number, self.served.digest

    def take(self, organisation: Address, reply: Message | None) -> None:
        """Take the losses in a reply; raises RejectedError where there are none."""
        self.losses[organisation] = read_reply(reply, training.losses_of, "no losses came in time")


def goes_with_task(rounds: Rounds, number: int) -> bool:
    """Whether round `number` asks to measure what is served after the round before, in one message with its task.

    It must ask everyone, as the round before did, and show them the state that is served. Not under differential
    privacy, where an organisation whose budget is spent abstains from training and still measures.
    """
    genesis = rounds.genesis
    before = number - 1
    everyone = genesis.policy(before) == genesis.policy(number) == "all" and not genesis.training.calibrates(before)
    lane, *others = rounds.lanes
    shown = not others and lane.lacks(number) and lane.served == lane.head
    return before > 0 and everyone and shown and genesis.privacy is None


def _asked(rounds: Rounds, number: int) -> list[Recipient]:
    """Who measures what is served after a round, in the first of its lanes: those it asked, all after the last."""
    first: dict[Address, int] = {}
    for lane in rounds.lanes:
        asked = lane.head.value.asked if lane.head and number < rounds.last else frozenset(lane.members)
        first |= {member: lane.index for member in lane.members if member in asked and member not in first}
    return [Recipient(lane, organisation) for organisation, lane in first.items()]


def means(losses: Sequence[Mapping[str, float]]) -> MetricRecord:
    """For every kind of loss the mean over the organisations that measured it."""
    names = sorted({name for values in losses for name in values})
    return MetricRecord({name: fmean(values[name] for values in losses if name in values) for name in names})


def curves(
    names: Mapping[Address, str], losses: Mapping[Address, Mapping[str, float]], validation: Mapping[str, float]
) -> dict[str, float]:
    """The losses of a round as trackers show them: ``KIND/ORGANISATION``, and ``validation/DOMAIN``."""
    own = {f"{kind}/{names[o]}": loss for o, values in losses.items() for kind, loss in values.items()}
    return own | {f"validation/{name}": loss for name, loss in validation.items()}
