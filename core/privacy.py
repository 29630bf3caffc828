"""Differential privacy of records: how much noise a federation's (ε, δ) takes, and how much of it is spent.

Two data sets are neighbours when one has one record more (add/remove). What depends on their number is computed from
the count that an organisation registered, which is public and fixed: how many there are by now tells nothing. An
organisation's updates of a lane, over all rounds and generations, are the composition of as many sampled Gaussian
mechanisms as it does optimiser steps, all of one sampling rate and one noise: so what is spent is a function of the
genesis, and of the number of steps. The accountant is that of Opacus, by Rényi divergences of integer orders (Mironov,
Talwar and Zhang, 2019, arXiv 1908.10530; converted as in Balle et al., 2020). It is right for Poisson sampling alone:
llm/private.py samples so.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from typing import Any

from core.canonical import Address
from core.errors import ConfigError
from core.genesis import Genesis, Privacy
from core.rounds import RoundRecord
from core.update import UpdateManifest

_ORDERS = (*range(2, 65), *range(72, 129, 8), 256, 512, 1024)
"""Of integer orders, at which the divergence is a finite sum; in between it is a series that converges slowly."""
_PRECISION = 0.002
"""By how much of ε the noise may be more than is needed."""
_MACHINES = 0.02
"""The part by which the accountants of two machines may differ: where a search ends hangs on the last digits."""


@dataclass(frozen=True)
class PrivacyPlan:
    """How an organisation trains privately in each of its lanes; it follows from the genesis.

    In every step a record is drawn with probability `rate`, and the sum is divided by the `expected` number of those
    drawn. `steps` are those of a whole round, `most` those that the budget covers: of the federation's rounds and of
    its reserve.
    """

    privacy: Privacy
    rate: float
    expected: float
    steps: int
    most: int

    @classmethod
    def of(cls, genesis: Genesis, organisation: Address) -> "PrivacyPlan | None":
        """That of a member; None where the federation counts no privacy loss."""
        if genesis.privacy is None:
            return None
        training, shards = genesis.training, len(genesis.lanes_of(organisation))
        drawn = training.batch_size * training.accumulation
        # By the registered count, which everybody knows: how many records there are by now is nobody's business. A
        # record is in one shard, whose steps are to draw as many as others do.
        examples = genesis.examples[organisation]
        rate = min(1.0, drawn * shards / examples)
        epochs = training.local_epochs or math.inf
        steps = min(training.local_steps, max(1, math.ceil(min(epochs / rate, training.local_steps))))
        expected = max(1.0, rate * examples / shards)
        return cls(genesis.privacy, rate, expected, steps, steps * (training.rounds + genesis.privacy.reserve))

    @cached_property
    def noise(self) -> float:
        """The noise's standard deviation σ, in units of the clipping norm, at which `most` steps spend at most ε.

        Raises ConfigError when no noise is enough.
        """
        return _noise(self.rate, self.most, self.privacy.epsilon, self.privacy.delta)

    def spent(self, steps: int) -> float:
        """ε after so many steps in one lane."""
        return _spent(self.noise, self.rate, steps, self.privacy.delta) if steps else 0.0

    def steps_of(self, epsilon: float) -> int:
        """The steps that a claim of so much ε stands for, up to what accountants of two machines differ."""
        least = (1 - _MACHINES) * epsilon
        return bisect_left(range(self.most), True, key=lambda steps: self.spent(steps) >= least)


class PrivacyClaims:
    """What the organisations of a run say that they have spent, in the order of their updates."""

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis
        self._steps: dict[tuple[int, Address], int] = {}
        self._claimed: dict[tuple[int, Address], float] = {}

    def expected(self, manifest: UpdateManifest) -> str | None:
        """What the ε of a member's manifest should be, where it is not; None when nothing is wrong with it.

        It is at least what the organisation said before, and what its admitted updates and this one have spent; it may
        be more, since updates that were not admitted spend as well.
        """
        plan = PrivacyPlan.of(self._genesis, manifest.organisation)
        if plan is None:
            return None if manifest.epsilon == 0 else "0"
        place = manifest.lane, manifest.organisation
        steps = self._steps.get(place, 0) + manifest.bid.steps
        least = max(self._claimed.get(place, 0.0), (1 - _MACHINES) * plan.spent(steps))
        most = (1 + _MACHINES) * plan.privacy.epsilon
        if least <= manifest.epsilon <= most:
            return None
        return f"{least:.4g} to {plan.privacy.epsilon:g}"

    def note(self, manifest: UpdateManifest) -> None:
        """Count an update that was admitted."""
        place = manifest.lane, manifest.organisation
        self._steps[place] = self._steps.get(place, 0) + manifest.bid.steps
        self._claimed[place] = max(self._claimed.get(place, 0.0), manifest.epsilon)


def claimed(records: Iterable[RoundRecord]) -> dict[Address, float]:
    """The most that each organisation has claimed in these records' updates, by address; none where none is counted."""
    found: dict[Address, float] = {}
    for manifest in (admitted.signed.value for record in records for admitted in record.admitted):
        if manifest.epsilon:
            found[manifest.organisation] = max(found.get(manifest.organisation, 0.0), manifest.epsilon)
    return dict(sorted(found.items()))


@lru_cache(maxsize=1024)
def _noise(rate: float, steps: int, epsilon: float, delta: float) -> float:
    with warnings.catch_warnings():
        # It warns where the best order is its smallest or largest: the bound holds, and could be tighter.
        warnings.simplefilter("ignore")
        try:
            found = _opacus().utils.get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=_PRECISION * epsilon,
                alphas=_ORDERS,
            )
        except ValueError as error:
            raise ConfigError(
                f"dp-epsilon: expected one that some noise reaches in {steps} steps at δ {delta:g}, got {epsilon:g}: "
                "raise dp-epsilon or dp-delta"
            ) from error
    return float(found)


@lru_cache(maxsize=4096)
def _spent(noise: float, rate: float, steps: int, delta: float) -> float:
    accountant = _opacus().RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta, alphas=_ORDERS))


def _opacus() -> Any:
    """Opacus' accountants, imported where they are used: that takes seconds, and most federations need none."""
    return import_module("opacus.accountants")
