"""What differential privacy costs an organisation, and what attacks on its updates still find.

One organisation trains alone, by the product's own rules, so that nothing but noise hides its records: half of a pool,
drawn anew for every run, and canaries, made-up names with a secret. The sum of its updates is then asked:

    loss       on held-out records
    exposure   of the canaries among all secrets, in bits (Carlini et al., 2019, arXiv 1802.08232); each is there once
    threshold  a record of small loss is a member (Yeom et al., 2018)
    LiRA       a record whose loss is likelier among runs with it than among those without (Carlini et al., 2022,
               arXiv 2112.03570), with the other runs for shadows, and one variance for each of the two kinds

An attack's AUC is over members and others of the pool; TPR is the share of members found where one in a hundred others
is taken for one. Every ε has the same runs, so that records, canaries and the shared A are the same; ε = ∞ is the same
training without clipping or noise. Whatever is measured is kept in WORK: a measurement that stops goes on from there.

    python -m benchmarks.privacy --data FOLDER --base FOLDER --work DIR [--runs N]
"""

import argparse
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks import arguments, report
from benchmarks.in_process import fresh_adapter
from benchmarks.speaking import once
from benchmarks.unlearning.canaries import COUNT, draw, exposures
from core.adapter import AdapterState
from core.canonical import digest
from core.genesis import Privacy
from core.intervals import MeanInterval
from core.privacy import PrivacyPlan
from llm.evaluate import evaluate, record_losses
from llm.files import read_records
from llm.model import Model, ModelSpec, load
from llm.private import Mechanism, train_privately
from llm.records import Record
from llm.train import TrainConfig

EPSILONS = (math.inf, 8.0, 3.0, 1.0)
DELTA, CLIP = 1e-4, 0.5
ROUNDS, STEPS, LOT = 4, 15, 32
"""Rounds, steps of each, and records that a step draws on average."""
POOL, HELD_OUT = 300, 60
"""Records of which half are members, and records that nobody trains on."""
RUNS = 10
RANK, ALPHA, MAX_LENGTH = 8, 16.0, 64
BATCH, RATE = 32, 3e-3
SEED = 7
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """The records that runs draw their members from, and held-out records."""

    records: tuple[Record, ...]
    held_out: tuple[Record, ...]

    @classmethod
    def read(cls, data: Path, domain: str) -> "Pool":
        """The first records of a domain."""
        found = (read_records(data / domain / f"{name}.jsonl") for name in ("train", "dev"))
        records, held_out = found
        return cls(tuple(records[:POOL]), tuple(held_out[:HELD_OUT]))


def members(run: int) -> NDArray[np.bool_]:
    """Which records of the pool are members in a run: a half, and the other half in the run after an even one."""
    drawn = np.random.default_rng([SEED, run // 2]).permutation(POOL) < POOL // 2
    return drawn if run % 2 == 0 else ~drawn


def measured(model: Model, pool: Pool, epsilon: float, run: int) -> dict[str, Any]:
    """One run at one ε: loss on held-out records, exposures, and the mean loss of every record of the pool."""
    canaries = draw(model, random.Random(run))  # noqa: S311 - a draw that can be repeated
    own = [record for record, member in zip(pool.records, members(run), strict=True) if member]
    adapter = trained(model, (*own, *(canary.record for canary in canaries)), epsilon, run)
    losses = [loss.nats / loss.tokens for loss in record_losses(model, adapter, pool.records, MAX_LENGTH)]
    return {
        "loss": evaluate(model, adapter, pool.held_out, MAX_LENGTH).loss,
        "exposure": fmean(exposures(model, adapter, canaries)),
        "losses": losses,
    }


def trained(model: Model, records: Sequence[Record], epsilon: float, run: int) -> AdapterState:
    """The adapter after all rounds of an organisation that trains alone."""
    rate, adapter = LOT / len(records), fresh_adapter(model, run)
    clip, noise = mechanism_of(epsilon, rate)
    for number in range(ROUNDS):
        config = TrainConfig(STEPS, BATCH, MAX_LENGTH, RATE, STEPS * number, STEPS * ROUNDS)
        # An HMAC under its key, in the product; here what the measurement is repeated by.
        secret = bytes.fromhex(digest("benchmark-noise", f"{epsilon} {run} {number}".encode())[2:])
        mechanism = Mechanism(rate, clip, noise, LOT, secret)
        # Alone in its lane, what it has trained is the lane's next state.
        adapter = train_privately(model, records, adapter, config, mechanism, run).adapter
    return adapter


def mechanism_of(epsilon: float, rate: float) -> tuple[float, float]:
    """Clipping norm and noise at which the whole training spends ε; neither clips nor adds noise for infinite ε."""
    if math.isinf(epsilon):
        return 1e9, 0.0
    return CLIP, PrivacyPlan(Privacy(epsilon, DELTA, CLIP), rate, 1.0, STEPS, STEPS * ROUNDS).noise


def area(scores: Scores, is_member: NDArray[np.bool_]) -> float:
    """The area under the curve: how likely a member scores higher than another."""
    found = stats.mannwhitneyu(scores[is_member], scores[~is_member])
    return float(found.statistic) / (int(is_member.sum()) * int((~is_member).sum()))


def found_at(scores: Scores, is_member: NDArray[np.bool_], rate: float = 0.01) -> float:
    """The share of members found where that share of the others is taken for members."""
    others = np.sort(scores[~is_member])[::-1]
    return float((scores[is_member] > others[int(rate * len(others))]).mean())


def likelihood_ratios(losses: Scores, inside: NDArray[np.bool_], target: int) -> Scores:
    """LiRA's score of every record in a target run; both arrays are (runs, records).

    The statistic is log p / (1 − p) with p = e^−loss; its variance is that of all records about their own means.
    """
    confidence = -losses - np.log(-np.expm1(-losses))
    shadows = np.arange(len(losses)) != target
    scores = np.zeros(losses.shape[1])
    for kind, sign in ((inside, 1.0), (~inside, -1.0)):
        known = np.where(kind & shadows[:, None], confidence, np.nan)
        mean, deviation = np.nanmean(known, 0), np.sqrt(np.nanmean((known - np.nanmean(known, 0)) ** 2))
        scores += sign * stats.norm.logpdf(confidence[target], mean, deviation)
    return scores


def row(epsilon: float, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of one ε over its runs; every attack is on each run, with the others for shadows."""
    losses = np.array([run["losses"] for run in runs])
    inside = np.array([members(index) for index in range(len(runs))])
    ratios = [likelihood_ratios(losses, inside, target) for target in range(len(runs))]
    attacks = {"threshold": list(-losses), "lira": ratios}
    figures: dict[str, Any] = {
        "epsilon": "∞" if math.isinf(epsilon) else epsilon,
        "noise": 0.0 if math.isinf(epsilon) else mechanism_of(epsilon, LOT / (POOL // 2 + COUNT))[1],
        "loss": str(MeanInterval.of([run["loss"] for run in runs])),
        "exposure_bits": str(MeanInterval.of([run["exposure"] for run in runs])),
    }
    for name, scores in attacks.items():
        pairs = list(zip(scores, inside, strict=True))
        figures[f"{name}_auc"] = str(MeanInterval.of([area(*pair) for pair in pairs]))
        figures[f"{name}_tpr_percent"] = str(MeanInterval.of([100 * found_at(*pair) for pair in pairs]))
    figures["bound_tpr_percent"] = 100.0 if math.isinf(epsilon) else min(100.0, math.exp(epsilon) + 100 * DELTA)
    return figures


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=arguments.folder, required=True, help="a folder with the domain's train and dev records"
    )
    parser.add_argument("--base", required=True, help="a base model's folder")
    parser.add_argument("--work", type=arguments.output, required=True, help="a folder for what is measured")
    parser.add_argument("--runs", type=arguments.count(2), default=RUNS, help="runs of each ε, an even number")
    options = parser.parse_args()
    if options.runs % 2:  # in the second of a pair are the records that the first leaves out
        parser.error(f"argument --runs: expected an even number, got {options.runs}")
    model = load(ModelSpec(options.base, "none", RANK, ALPHA, blocks="last-half"))
    pool, kept = Pool.read(options.data, "medical"), {epsilon: list[dict[str, Any]]() for epsilon in EPSILONS}
    # Every ε within a run: a measurement that stops has as many runs of each.
    for run in range(options.runs):
        for epsilon, found in kept.items():
            found.append(once(options.work / f"{epsilon}-{run}.json", partial(measured, model, pool, epsilon, run)))
    base = evaluate(model, None, pool.held_out, MAX_LENGTH).loss
    figures = {"runs": options.runs, "base_loss": base, "delta": DELTA, "rows": [row(e, kept[e]) for e in EPSILONS]}
    report.write("privacy", figures, "python -m benchmarks.privacy --data FOLDER --base FOLDER --work DIR", SEED)
    report.print_table(tuple(figures["rows"][0]), [tuple(each.values()) for each in figures["rows"]])


if __name__ == "__main__":
    main()
