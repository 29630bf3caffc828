"""Measuring on the shared validation set: the loss of the served adapters, and the credit of a round."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from agents import credit
from agents.rewards import Rewards
from core.adapter import AdapterState
from core.aggregation import RULES, Rule, WeightedUpdate
from core.canonical import Address, Digest, digest, to_json
from core.composition import Composition
from core.config import CREDITED, RunConfig
from core.credit import RoundCredit
from core.errors import ConfigError, DataError
from core.robust import scaled
from core.storage.run_folder import RunFolder
from core.update import LARGEST_LOSS
from llm import batches
from llm.data import read_data
from llm.evaluate import record_losses
from llm.loss_and_gradient import loss_and_gradient
from llm.model import Model
from llm.records import Collection, Record
from llm.served import base_of, shared_adapter

DECIDING, TELLING = 4, 1
"""Records of every domain on which the effect of each update is measured, for a rule that decides by it or for people.

As many evaluations as updates must not slow a round down.
"""
_MOST_KNOWN = 64
"""States whose losses are kept: those before and after a round, in every lane."""


@dataclass(frozen=True)
class Measuring:
    """A base model, the adapter before any training, and the shared validation set, by domains."""

    model: Model
    fresh: AdapterState
    rule: Rule
    domains: Mapping[str, Sequence[Record]]
    max_length: int
    _known: dict[Digest, Mapping[str, float]] = field(default_factory=dict, init=False)
    """The losses of what was measured, by its digest: a round is compared by those that it is evaluated with."""

    @classmethod
    def of(cls, config: RunConfig, model: Model, fresh: AdapterState, records: Iterable[Record]) -> "Measuring":
        """Measuring on the first `evaluate-limit` records of every domain."""
        domains: dict[str, list[Record]] = {}
        for record in records:
            domains.setdefault(record.domain or "all", []).append(record)
        first = {name: of_domain[: config.evaluate_limit or None] for name, of_domain in domains.items()}
        return cls(model, fresh, RULES[config.aggregation], first, config.max_length)

    def losses(self, served: Composition) -> dict[str, float]:
        """The loss of the served adapters on every domain, in nats per answer token.

        At most what a record or a certificate holds, also of a model that diverged.
        """
        if served.digest not in self._known:
            adapters = served.map(lambda state: self.rule.adapter(state, self.fresh))
            owners = [name for name, records in self.domains.items() for _ in records]
            records = [record for of_domain in self.domains.values() for record in of_domain]
            nats, tokens = dict.fromkeys(owners, 0.0), dict.fromkeys(owners, 0)
            # All domains together: a quantised weight is unpacked once for a batch, however full it is.
            for name, loss in zip(owners, record_losses(self.model, adapters, records, self.max_length), strict=True):
                nats[name] += loss.nats
                tokens[name] += loss.tokens
            measured = {name: nats[name] / tokens[name] for name in self.domains}
            # Not `min`, which may return NaN: that is less than nothing.
            kept = {name: loss if loss < LARGEST_LOSS else LARGEST_LOSS for name, loss in measured.items()}
            if len(self._known) >= _MOST_KNOWN:  # the oldest: a run measures as many states as it has rounds
                del self._known[next(iter(self._known))]
            self._known[served.digest] = kept
        return dict(self._known[served.digest])

    def loss(self, state: AdapterState) -> float:
        """The mean loss of a lane's state over the domains, in nats per answer token."""
        return fmean(self.losses(Composition.of(state)).values())

    def loss_bound(self, state: AdapterState) -> float:
        """The highest loss of a lane's state on any domain, in nats per answer token."""
        return max(self.losses(Composition.of(state)).values())

    def effects(self, before: AdapterState, updates: Iterable[WeightedUpdate], seconds: float) -> dict[Address, float]:
        """By how many nats an update alone, with its weight, raises a lane's mean loss over domains.

        Of the first one, and of as many of the next as are begun within so many seconds.
        """
        few, until = self._on_few(TELLING), time.monotonic() + seconds
        found: dict[Address, float] = {}
        for update in updates:
            if found and time.monotonic() > until:
                break
            found |= few.rises(before, [update])
        return found

    def harms(self, before: AdapterState, updates: Sequence[WeightedUpdate], bound: float) -> dict[Address, float]:
        """The harm of each update alone, with its weight, in nats; its rise where that is within the bound."""
        few = self._on_few(DECIDING)
        rises = few.rises(before, updates)
        # Few honest updates raise the loss: the opposites of those alone have to be measured.
        doubtful = [update for update in updates if rises[update.organisation] > bound]
        opposite = few.rises(before, scaled(doubtful, dict.fromkeys(rises, -1.0)))
        return rises | {a: min(rises[a], (rises[a] - other) / 2) for a, other in opposite.items()}

    def rises(self, before: AdapterState, updates: Sequence[WeightedUpdate]) -> dict[Address, float]:
        """By how many nats each update alone, with its weight, raises a lane's mean loss over domains."""
        least = self.loss(before) if updates else 0.0
        return {u.organisation: self.loss(self.rule.aggregate(before, [u]).state) - least for u in updates}

    def _on_few(self, records: int) -> "Measuring":
        """Measuring on the first so many records of every domain."""
        return replace(self, domains={domain: found[:records] for domain, found in self.domains.items()})

    def credit(self, done: credit.CreditedRound) -> RoundCredit:
        """The credit of a round, domain by domain."""
        before, after = (self.losses(Composition.of(state)) for state in (done.before, done.after))
        losses = {name: (before[name], after[name]) for name in self.domains}
        return credit.measure(done, self.loss_and_gradient, losses)

    def loss_and_gradient(self, state: AdapterState, name: str) -> tuple[float, AdapterState]:
        """The loss of a lane's state on a domain, and its gradient with respect to that state."""
        adapter = self.rule.adapter(state, self.fresh)
        return loss_and_gradient(self.model, adapter, list(state), self.domains[name], self.max_length)

    def rewards(self, config: RunConfig, run: RunFolder) -> Rewards | None:
        """The rewards of a run; None where the policy pays for no credit.

        Raises ConfigError for a rule whose rounds cannot be credited.
        """
        if config.participation not in CREDITED:
            return None
        if config.aggregation not in credit.RULES:
            rules = " or ".join(credit.RULES)
            raise ConfigError(
                f"participation {config.participation}: expected aggregation {rules}, got {config.aggregation}"
            )
        return Rewards(run, config.pool, self.credit)


def known_data(config: RunConfig) -> Collection:
    """The data as the coordinator can read them: all of a simulation's, else the shared validation set alone.

    In a simulation, bad data are refused here, before any organisation is asked. Raises DataError, or ConfigError for a
    deployment that does not say how many organisations to wait for.
    """
    if config.coordinator_key and not config.organisations:
        raise ConfigError("organisations: expected the number that a deployment waits for, got 0")
    found = read_data(replace(config, organisations=0) if config.coordinator_key else config)
    return replace(found, organisations=()) if config.coordinator_key else found


def check_turns(model: Model, data: Collection) -> None:
    """Refuse conversations that the base's chat template refuses; raises DataError, which names whose they are."""
    known: dict[str, tuple[Record, ...]] = {"validation": data.validation}
    known |= {organisation.name: (*organisation.train, *organisation.dev) for organisation in data.organisations}
    # Each order once: of ten thousand organisations, templates would take longer than anything else before round 1.
    tried: set[tuple[str, ...]] = set()
    for name, records in known.items():
        try:
            batches.check_turns(model.tokenizer, records, tried)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error


def digest_of(validation: Iterable[Record]) -> Digest:
    """SHA-256 of domains and digests of the shared validation set, in order, under ``foedus/validation/v1``."""
    return digest("validation", to_json([[record.domain, record.digest] for record in validation]))


def measuring_again(run: RunFolder, config: RunConfig) -> Measuring:
    """What the coordinator of a run measured with.

    `config` names base and validation data as they are here. Raises ModelError or DataError when they are not those of
    the genesis.
    """
    genesis = run.genesis
    model, validation = base_of(genesis, config.base), known_data(config).validation
    if (got := digest_of(validation)) != genesis.validation:
        raise DataError(f"validation set: expected {genesis.validation}, got {got}")
    training = genesis.training
    as_then = replace(
        config, aggregation=genesis.rule, evaluate_limit=training.evaluate_limit, max_length=training.max_length
    )
    return Measuring.of(as_then, model, shared_adapter(model, genesis.rank, genesis.shared_seed), validation)


def credited_again(run: RunFolder, config: RunConfig) -> dict[Address, float]:
    """Every organisation's payments, measured anew from a run's records and artifacts; raises as `measuring_again`."""
    measuring, genesis = measuring_again(run, config), run.genesis
    rewards = Rewards(run, config.pool, measuring.credit)
    for lane in range(len(genesis.lanes)):
        rewards.measure_again(lane, run.initial(measuring.fresh))
    return rewards.cumulative()
