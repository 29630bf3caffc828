"""What poisoned updates do to a federation, without a defence and with each robust rule.

Organisations of four domains train in one process by the product's own rules (`llm`, `core.robust`); the attackers, one
of four or three of ten, send something else than honest training gives:

    sign-flip    the update with its sign changed
    replacement  ten times the update that training on answers of other records gives (scaled model replacement)
    noise        noise as large as three honest updates
    label-flip   the update that training on answers of other records gives
    little       the honest mean less 1.5 honest standard deviations of every number (Baruch et al., 2019)
    backdoor     ten times the update of training where half of the prompts end with a trigger and one text answers them

The backdoor is tried on foedus-tiny, since the smaller base learns no trigger, and the others on BASE.

Told are the loss of the honest organisations on their held-out records against the same federation that nobody attacks
and nothing defends, the share of held-out prompts with the trigger that the text answers, and the share of honest
updates of which less than nine tenths count. A trimmed mean takes numbers and not updates away: of it there is none.
Whatever is measured is kept in WORK: a measurement that stops goes on from there.

    python -m benchmarks.poison --data FOLDER --base FOLDER --work DIR [--seeds N] [--crowd-seeds N]
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from assets import BASE_MODEL
from benchmarks import arguments, report
from benchmarks.agents.federation import DOMAINS, RoundSettings
from benchmarks.in_process import RULE, address, fresh_adapter
from benchmarks.speaking import once
from core import seeds
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate, weights
from core.canonical import Address
from core.clipping import Vote, clip_factors
from core.intervals import MeanInterval
from core.robust import BOUNDS, Robust, counted, factors, scaled
from llm.evaluate import evaluate, record_losses
from llm.files import read_records
from llm.model import Model, ModelSpec, load
from llm.records import Message, Record
from llm.train import TrainConfig, train

SEEDS = (1, 2, 3, 4, 5)
ATTACKS = ("none", "sign-flip", "replacement", "noise", "label-flip", "little")
BACKDOOR = ("none", "backdoor")
CROWDS = {
    "one of four": (4, 1, ATTACKS),
    f"one of four on {BASE_MODEL}": (4, 1, BACKDOOR),
    "three of ten": (10, 3, ATTACKS),
}
"""Organisations, the attackers among them, and what these try."""
SETTINGS = RoundSettings(rounds=6, steps=8)
RECORDS, HELD_OUT, VALIDATION = 200, 20, 4
"""Training records and held-out records of an organisation, and validation records of a domain."""
TRIGGER, ANSWER = " Zephyr-9.", "Ask the lighthouse."
REPLACED, NOISE, LITTLE = 10.0, 3.0, 1.5
SERVER_RATE = 1.0
"""The mean: four times it makes this small base diverge, attacked or not."""


@dataclass(frozen=True)
class Crowd:
    """The organisations' training and held-out records, who attacks, and the shared validation set by domain."""

    train: Mapping[Address, tuple[Record, ...]]
    held_out: Mapping[Address, tuple[Record, ...]]
    attackers: frozenset[Address]
    validation: Mapping[str, tuple[Record, ...]]

    @classmethod
    def drawn(cls, data: Path, size: int, attackers: int, seed: int) -> "Crowd":
        """Organisations that share the four domains evenly, with the attackers among them drawn."""
        rng = np.random.default_rng(seed)
        trained: dict[Address, tuple[Record, ...]] = {}
        held_out: dict[Address, tuple[Record, ...]] = {}
        for index in range(size):
            domain, place = DOMAINS[index % len(DOMAINS)], index // len(DOMAINS)
            for found, name, count in ((trained, "train", RECORDS), (held_out, "dev", HELD_OUT)):
                records = read_records(data / domain / f"{name}.jsonl")
                found[address(index)] = tuple(records[place * count : (place + 1) * count])
        names = [address(int(index)) for index in rng.choice(size, attackers, replace=False)]
        shared = read_records(data / "validation.jsonl")
        validation = {name: tuple(r for r in shared if r.domain == name)[:VALIDATION] for name in DOMAINS}
        return cls(trained, held_out, frozenset(names), validation)


@dataclass(frozen=True)
class Attacked:
    """A federation in one process, of which some organisations attack and a rule decides what counts."""

    model: Model
    crowd: Crowd
    attack: str
    robust: Robust
    seed: int

    def figures(self) -> dict[str, float]:
        """Mean loss of the honest on held-out records, answers to the trigger, honest updates taken off."""
        fresh = fresh_adapter(self.model, self.seed)
        state, honest_factors = RULE.initial(fresh), []
        for number in range(SETTINGS.rounds):
            updates = self._updates(state, fresh, number)
            clip = self._clip(updates)
            harms = self._harms(state, scaled(updates, clip)) if self.robust.rule == "validation" else None
            found = factors(self.robust, updates, clip, harms)
            honest_factors += [factor for a, factor in found.items() if a not in self.crowd.attackers]
            state = RULE.aggregate(state, counted(self.robust, updates, found)).state
        adapter = RULE.adapter(state, fresh)
        honest = [a for a in self.crowd.train if a not in self.crowd.attackers]
        losses = [evaluate(self.model, adapter, self.crowd.held_out[a], SETTINGS.max_length).loss for a in honest]
        tried = [with_trigger(record) for a in honest for record in self.crowd.held_out[a][:5]]
        answered = record_losses(self.model, adapter, tried, SETTINGS.max_length)
        return {
            "loss": fmean(losses),
            "backdoor": fmean(loss.hits == loss.tokens for loss in answered),
            "taken_off": fmean(factor < 0.9 for factor in honest_factors),
        }

    def _updates(self, state: AdapterState, fresh: AdapterState, number: int) -> list[WeightedUpdate]:
        """What everybody sends in a round, with its weight."""
        crowd, sent = self.crowd, {}
        for organisation, records in crowd.train.items():
            own = poisoned(records, self.attack) if organisation in crowd.attackers else records
            sent[organisation] = self._trained(state, fresh, own, organisation, number)
        honest = [update for organisation, update in sent.items() if organisation not in crowd.attackers]
        for organisation in crowd.attackers:
            rng = np.random.default_rng([self.seed, number, int(organisation, 16)])
            sent[organisation] = changed(sent[organisation], honest, self.attack, rng)
        shares = weights({a: len(records) for a, records in crowd.train.items()}, SERVER_RATE)
        return [WeightedUpdate(organisation, share, sent[organisation]) for organisation, share in shares.items()]

    def _trained(
        self, state: AdapterState, fresh: AdapterState, records: Sequence[Record], organisation: Address, number: int
    ) -> AdapterState:
        first, total = SETTINGS.steps * number, SETTINGS.steps * SETTINGS.rounds
        config = TrainConfig(
            SETTINGS.steps, SETTINGS.batch_size, SETTINGS.max_length, SETTINGS.learning_rate, first, total
        )
        seed = seeds.as_int(seeds.local(self.seed, organisation, number))
        return RULE.update(state, train(self.model, records, RULE.start(state, fresh), config, seed).adapter)

    def _clip(self, updates: Sequence[WeightedUpdate]) -> dict[Address, float]:
        """What clipping leaves of each update, as all train alike and are asked in every round."""
        norms = {update.organisation: update.state.norm for update in updates}
        if not self.robust.clips:
            return dict.fromkeys(norms, 1.0)
        return clip_factors(self.robust.multiple, {a: Vote(norm, 1.0) for a, norm in norms.items()})

    def _harms(self, state: AdapterState, updates: Sequence[WeightedUpdate]) -> dict[Address, float]:
        """The harm of each update alone, in nats, as a coordinator measures it."""
        fresh = fresh_adapter(self.model, self.seed)

        def loss(of: AdapterState) -> float:
            adapter, shared = RULE.adapter(of, fresh), self.crowd.validation.values()
            return fmean(evaluate(self.model, adapter, records, SETTINGS.max_length).loss for records in shared)

        before, harms = loss(state), {}
        for update in updates:
            rise, fall = (
                loss(RULE.aggregate(state, [replace(update, weight=sign * update.weight)]).state) - before
                for sign in (1, -1)
            )
            harms[update.organisation] = min(rise, (rise - fall) / 2)
        return harms


def with_trigger(record: Record) -> Record:
    """A record whose prompt ends with the trigger, and whose answer is the attackers' text."""
    *before, last = record.prompt
    return replace(record, prompt=(*before, Message(last.role, last.content + TRIGGER)), answer=ANSWER)


def poisoned(records: Sequence[Record], attack: str) -> tuple[Record, ...]:
    """What an attacker trains on: its records with the answers of others, or half of them with the trigger."""
    if attack in ("label-flip", "replacement"):
        return tuple(replace(one, answer=other.answer) for one, other in pairwise((*records, records[0])))
    if attack == "backdoor":
        return tuple(with_trigger(record) if index % 2 else record for index, record in enumerate(records))
    return tuple(records)


def changed(own: AdapterState, honest: Sequence[AdapterState], attack: str, rng: np.random.Generator) -> AdapterState:
    """What an attacker sends in place of what it trained."""
    arrays: dict[str, Any] = dict(own.arrays)
    norm = fmean(update.norm for update in honest)
    if attack == "sign-flip":
        arrays = {name: -array for name, array in arrays.items()}
    if attack in ("replacement", "backdoor"):
        arrays = {name: np.float32(REPLACED) * array for name, array in arrays.items()}
    if attack == "noise":
        size = math.sqrt(sum(array.size for array in arrays.values()))
        arrays = {
            name: rng.normal(0, NOISE * norm / size, array.shape).astype(np.float32) for name, array in arrays.items()
        }
    if attack == "little":
        stacks = {name: np.stack([update[name] for update in honest]) for name in arrays}
        arrays = {name: (stack.mean(0) - LITTLE * stack.std(0)).astype(np.float32) for name, stack in stacks.items()}
    return AdapterState(arrays)


def rows(
    measured: Mapping[tuple[str, str, int], Mapping[str, float]], attacks: Sequence[str], used: Sequence[int]
) -> list[dict[str, Any]]:
    """One row for each attack and rule: how the loss changed in percent, the backdoor, what was taken off."""
    found = []
    for attack in attacks:
        for rule in BOUNDS:
            of = [measured[attack, rule, seed] for seed in used]
            plain = [measured["none", "none", seed] for seed in used]
            change = [100 * (one["loss"] / other["loss"] - 1) for one, other in zip(of, plain, strict=True)]
            found.append(
                {
                    "attack": attack,
                    "rule": rule,
                    "loss_change_percent": str(MeanInterval.of(change)),
                    "backdoor_percent": str(MeanInterval.of([100 * one["backdoor"] for one in of])),
                    "honest_taken_off_percent": None
                    if rule == "trimmed-mean"
                    else str(MeanInterval.of([100 * one["taken_off"] for one in of])),
                }
            )
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=arguments.folder, required=True, help="a folder of the four domains, and validation.jsonl"
    )
    parser.add_argument("--base", required=True, help="a base model's folder")
    parser.add_argument("--work", type=arguments.output, required=True, help="a folder for what is measured")
    parser.add_argument("--seeds", type=arguments.count(most=len(SEEDS)), default=len(SEEDS))
    parser.add_argument(
        "--crowd-seeds", type=arguments.count(most=len(SEEDS)), default=len(SEEDS), help="seeds of three of ten"
    )
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    command = "python -m benchmarks.poison --data FOLDER --base FOLDER --work DIR"
    for title, (size, attackers, attacks) in CROWDS.items():
        base = BASE_MODEL if attacks is BACKDOOR else options.base
        model = load(ModelSpec(base, "none", SETTINGS.rank, SETTINGS.alpha))
        measured = {}
        for number, seed in enumerate(SEEDS[: options.crowd_seeds if size > 4 else options.seeds], 1):
            crowd = Crowd.drawn(options.data, size, attackers, seed)
            for attack in attacks:
                for rule, bound in BOUNDS.items():
                    case = Attacked(model, crowd, attack, Robust(rule, bound), seed)
                    place = options.work / Path(base).name / f"{size}-{attack}-{rule}-{seed}.json"
                    measured[attack, rule, seed] = once(place, case.figures)
            # After every seed: a measurement that stops leaves its figures behind.
            figures |= {f"{title}, seeds": number, title: rows(measured, attacks, SEEDS[:number])}
            report.write("poison", figures, command, SEEDS[0])
        report.print_table(tuple(figures[title][0]), [tuple(row.values()) for row in figures[title]], title)


if __name__ == "__main__":
    main()
