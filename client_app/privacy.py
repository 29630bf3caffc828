"""Privacy: an organisation's account of what its updates tell of its records, and the secret that hides the rest.

    privacy/GENESIS/ADDRESS.jsonl      {a round, the digest of what it is trained from, its steps}, one line a training

A round is entered before it is trained. The secret of its sampling and noise follows from the organisation's key and
that digest, which covers federation, round, state, bid, σ, records, and the environment in which sums round alike. A
round that is asked for again is trained to the same update and costs nothing more; any other training draws noise of
its own, and is paid for. So no two updates hide different things behind the same noise, and none hides the same behind
two. What is entered is spent, whether the coordinator admits the update or not. Derived keys, a simulation's, are
public, and so is the noise that follows from them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from core.canonical import Digest, digest, raw, to_json
from core.errors import IntegrityError, PrivacyError
from core.messages.training import Task
from core.parsing import parsed
from core.privacy import PrivacyPlan
from core.round_key import RoundKey
from core.signed import SigningKey
from core.storage import jsonl
from core.update import Bid
from llm.private import Mechanism
from llm.records import Record


@dataclass(frozen=True)
class PrivateRound:
    """A round that the account covers: how it is trained, ε with it, and the secret of its sampling and noise."""

    plan: PrivacyPlan
    epsilon: float
    secret: bytes = field(repr=False)

    @property
    def mechanism(self) -> Mechanism:
        """The mechanism of its training."""
        plan = self.plan
        return Mechanism(plan.rate, plan.privacy.clip, plan.noise, plan.expected, self.secret)


@dataclass(frozen=True)
class _Training:
    """What is entered of one."""

    key: RoundKey
    inputs: Digest
    steps: int


class PrivacyAccount:
    """One organisation's account in one federation; its messages are handled one at a time, by any process."""

    def __init__(self, path: Path, plan: PrivacyPlan) -> None:
        self._path, self._plan = path, plan

    def spend(self, key: RoundKey, inputs: Digest, steps: int) -> float:
        """Enter a training; returns ε in its lane after all that was entered. The same inputs are entered once.

        Raises PrivacyError when the budget does not cover it, IntegrityError when the account is damaged.
        """
        entries, entry = self._entries(), _Training(key, inputs, steps)
        known = entry in entries
        spent = sum(e.steps for e in entries if e.key.lane == key.lane)
        if not known and spent + steps > self._plan.most:
            raise PrivacyError(
                f"privacy budget: expected at most {self._plan.most - spent} steps more, got a round of {steps}: it is "
                f"made for {self._plan.most}"
            )
        if not known:
            # On disk first: an update that nobody has counted must not leave.
            jsonl.append(self._path, asdict(entry))
        return self._plan.spent(spent if known else spent + steps)

    def check_whole(self, trained: Mapping[RoundKey, int]) -> None:
        """Check that there is an entry for each update that was sent, so many for each round; raises IntegrityError.

        An account that is lost, or older than the organisation's memory, would spend the same budget again.
        """
        entered = Counter(entry.key for entry in self._entries())
        for key, updates in sorted(trained.items()):
            if entered[key] < updates:
                raise IntegrityError(
                    f"privacy account {self._path}: expected {updates} entries of {key}, got {entered[key]}: restore "
                    "its newest copy"
                )

    def _entries(self) -> list[_Training]:
        return jsonl.read_as(self._path, partial(parsed, _Training, nested={"key": RoundKey.from_dict}, called="entry"))


def private_round(
    task: Task,
    bid: Bid,
    records: Sequence[Record],
    key: SigningKey,
    path: Path,
    trained: Mapping[RoundKey, int],
    environment: Callable[[], Mapping[str, str]],
) -> PrivateRound | None:
    """Pay for a task's round from the account at `path`; None where the federation counts no privacy loss.

    `trained` are the rounds that updates were sent for, and how many; `environment` tells what decides how sums round.
    Raises as `PrivacyAccount.spend` does.
    """
    plan = PrivacyPlan.of(task.genesis, task.organisation)
    if plan is None:
        return None
    round_key = RoundKey(task.genesis.digest, task.lane, task.generation, task.round)
    account = PrivacyAccount(path, plan)
    account.check_whole(trained)
    # The accountants of two machines find slightly different σ: one noise in two sizes would be known, and taken off.
    described = {"key": asdict(round_key), "state": task.state.digest, "bid": asdict(bid), "noise": plan.noise}
    # Under other versions, on another device, sums round otherwise: their difference would show past the same noise.
    described |= {"environment": dict(environment())}
    inputs = digest("private-round", to_json(described), *(raw(record.digest) for record in records))
    return PrivateRound(plan, account.spend(round_key, inputs, bid.steps), key.salt_for(inputs))
