"""How well attribution foretells what a model without some organisations would say: the linear datamodeling score.

Organisations (the samples' and the four worlds') train a federation together; so does each of 16 random halves of them,
with the same seed. For a held-out question and its answer, the real effect of a half is the log-likelihood of the
answer under the half's model, and the predicted one the sum of the scores of the organisations in it. Their rank
correlation over the halves, averaged over the questions, is the score (Park et al., 2023, arXiv 2303.14186, there of
training records); intervals are over questions and seeds. What was measured lies in WORK: a run that stops goes on. The
scores of a whole seed lie in benchmarks/measured, and are not measured again.

    python -m benchmarks.lds --work WORK [--seeds N]
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import assets
from benchmarks import arguments, report
from benchmarks.in_process import RULE, Member, Schedule, fresh_adapter, train_to_end
from benchmarks.provenance.federation import subjects
from benchmarks.provenance.measure import CONTROLS, path
from benchmarks.speaking import SEEDS, once
from benchmarks.statistics import spearman
from core.config import RunConfig
from core.intervals import MeanInterval
from llm.batches import Example, collate, encode
from llm.determinism import reproducible
from llm.files import read_records
from llm.loss import answer_losses
from llm.model import Model
from llm.sources import base_of_settings
from provenance.attribution import METHODS
from provenance.method import Effort, Scoring

SUBSETS = 16
QUESTIONS = 4
"""Held-out questions of each organisation."""
ROUNDS, STEPS = 2, 4
COMPARED: Mapping[str, Scoring] = {
    **{name: METHODS[name].score for name in ("marginal", "ablation", "gradient", "direct-logit", "protoken")},
    "shapley, 4 points": path,
    **{name: CONTROLS[name] for name in ("client likelihood", "update norm", "random")},
}
_LONGEST = 256
WORLDS = Path(__file__).parent / "worlds"


@dataclass(frozen=True)
class Federation:
    """The organisations of the samples and of the worlds, the base that they train, and their held-out questions."""

    model: Model
    members: Sequence[Member]
    examples: Sequence[Example]
    seed: int

    @classmethod
    def of(cls, folders: Sequence[Path], seed: int) -> "Federation":
        """That of the organisations in some folders, by their names."""
        model = base_of_settings(RunConfig())
        members = [Member(tuple(read_records(folder / "train.jsonl"))) for folder in folders]
        records = [record for folder in folders for record in islice(read_records(folder / "dev.jsonl"), QUESTIONS)]
        return cls(model, members, [encode(model.tokenizer, record, _LONGEST) for record in records], seed)

    def schedule(self, taking_part: Sequence[int]) -> Schedule:
        """All of these in every round, with the product's settings."""
        return Schedule.by_default((tuple(taking_part),) * ROUNDS, STEPS)

    def predicted(self) -> dict[str, list[list[float]]]:
        """Of every method, and for each question, the score of each organisation; trains the federation of all."""
        everyone = range(len(self.members))
        *_, subject = subjects(self.model, self.members, self.schedule(everyone), self.seed)
        self.model.set_adapter(subject.adapter)
        found: dict[str, list[list[float]]] = {name: [] for name in COMPARED}
        for example in self.examples:
            with reproducible(self.model.device, 0):
                for name, method in COMPARED.items():
                    found[name].append(method(subject, example, Effort(points=4)).response.tolist())
        return found

    def real(self, taking_part: Sequence[int]) -> list[float]:
        """The log-likelihood of each answer, in nats, once only these organisations have trained."""
        state = train_to_end(self.model, self.members, self.schedule(taking_part), self.seed)
        self.model.set_adapter(RULE.adapter(state, fresh_adapter(self.model, self.seed)))
        rows = (self.model.entered(collate([example], [[0]]).to(self.model.device)) for example in self.examples)
        with torch.no_grad():
            return [-float(answer_losses(self.model, row).double().sum()) for row in rows]


def halves(organisations: int, seed: int) -> list[list[int]]:
    """`SUBSETS` different halves, drawn at random."""
    rng, found = np.random.default_rng(seed), set[tuple[int, ...]]()
    while len(found) < SUBSETS:
        found.add(tuple(sorted(rng.choice(organisations, organisations // 2, replace=False).tolist())))
    return [list(half) for half in sorted(found)]


def scores(
    subsets: Sequence[Sequence[int]], real: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]]
) -> list[float]:
    """The rank correlation, for each question, of the real effects of subsets with the predicted ones."""
    found = []
    for question, by_organisation in enumerate(predicted):
        expected = np.array([sum(by_organisation[index] for index in subset) for subset in subsets])
        found.append(spearman(np.array([effects[question] for effects in real]), expected))
    return found


def measured(work: Path, folders: Sequence[Path], seed: int) -> dict[str, list[float]]:
    """The score of each method for every question, of one seed."""
    federation, subsets = Federation.of(folders, seed), halves(len(folders), seed)
    predicted: dict[str, Any] = once(work / f"{seed}" / "predicted.json", federation.predicted)
    real = [
        once(work / f"{seed}" / f"{'-'.join(map(str, half))}.json", partial(federation.real, half)) for half in subsets
    ]
    return {name: [round(score, 4) for score in scores(subsets, real, found)] for name, found in predicted.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=arguments.output, required=True, help="folder for what was measured")
    parser.add_argument("--seeds", type=arguments.count(most=len(SEEDS)), default=3)
    options = parser.parse_args()
    folders = sorted(
        (file.parent for home in (assets.samples(), WORLDS) for file in home.glob("*/train.jsonl")),
        key=lambda folder: folder.name,
    )
    seeds = []
    for seed in SEEDS[: options.seeds]:
        seeds.append(report.kept("lds", f"{seed}", partial(measured, options.work, folders, seed)))
        # After every seed: a run that stops leaves its figures behind.
        every = {name: [score for one in seeds for score in one[name]] for name in COMPARED}
        rows = [{"method": name, "score": str(MeanInterval.of(found))} for name, found in every.items()]
        figures = {
            "seeds": len(seeds), "organisations": len(folders), "halves": SUBSETS,
            "questions": QUESTIONS * len(folders), "methods": rows,
        }  # fmt: skip
        report.write("lds", figures, "python -m benchmarks.lds --work WORK", SEEDS[0], kept_as="lds")
    report.print_table(tuple(rows[0]), [tuple(found.values()) for found in rows])


if __name__ == "__main__":
    main()
