"""Attribution on narrower bases: one federation, attributed on its base in float32, bfloat16 and NF4.

    python -m benchmarks.provenance.narrow --data DATA --base BASES/llama [--seeds 2] [--every 2]

Organisations learn the planted facts of the embedded samples on the float32 base (`facts` of experiments.py). Then the
same adapter and contributions are put on the base in each form, and every second response is attributed. Agreement is
Pearson's correlation with the float32 scores, each response (each token) less its mean over the organisations.
"""

import argparse
import copy
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import arguments, report
from benchmarks.in_process import address
from benchmarks.provenance.experiments import ExperimentSettings, Probe, facts
from benchmarks.provenance.federation import subjects
from benchmarks.provenance.measure import attributed, model_of
from benchmarks.provenance.tables import Attributed
from benchmarks.statistics import Share, pearson
from llm.model import Model
from provenance.attribution import METHODS
from provenance.method import Subject

NAMES = ("gradient", "direct-logit")


def forms(base: Path, model: Model) -> Iterator[tuple[str, Model]]:
    """The base in each form; the unquantised weights beside NF4 are float32, as everywhere on a CPU."""
    yield "float32", model
    # A copy: the caller goes on with the float32 base.
    module = copy.deepcopy(model.module)
    for name, parameter in module.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    yield "bfloat16", replace(model, module=module)
    yield "nf4", model_of(base, "nf4")


def rows_of(subject: Subject, probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """The scores of each probe by both methods, with the right organisations."""
    subject.model.set_adapter(subject.adapter)
    methods = {name: METHODS[name].score for name in NAMES}
    return [{"right": [address(k) for k in p.right], **attributed(subject, p.example, methods)} for p in probes]


def compared(rows: Sequence[Mapping[str, Any]], wide: Sequence[Mapping[str, Any]], method: str) -> dict[str, Any]:
    """Accuracy on one form of the base, and agreement with the float32 one."""
    ours, theirs = ([Attributed({}, row, method) for row in some] for some in (rows, wide))
    same = [one.verdict[1] == other.verdict[1] for one, other in zip(ours, theirs, strict=True)]
    return {
        "right": Share(sum(one.right for one in ours), len(ours)).percent,
        "same verdict percent": 100 * float(np.mean(same)),
        "agreement of responses": pearson(*(_centred([one.scores[1] for one in some]) for some in (ours, theirs))),
        "agreement of tokens": pearson(*(_centred([one.scores[0] for one in some]) for some in (ours, theirs))),
    }


def main() -> None:
    """Train, attribute on every form, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=arguments.folder, required=True, help="folder with DOMAIN/train.jsonl and DOMAIN/dev.jsonl"
    )
    parser.add_argument("--base", type=arguments.folder, required=True, help="folder of a base")
    parser.add_argument("--seeds", type=arguments.count(), default=2)
    parser.add_argument("--every", type=arguments.count(), default=2, help="attribute one response in so many")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for seed in range(options.seeds):
        model = model_of(options.base)
        experiment = facts(ExperimentSettings(model, options.data, "", seed))
        *_, subject = subjects(model, experiment.members, experiment.schedule, seed)
        for name, form in forms(options.base, model):
            found[name] += rows_of(replace(subject, model=form), experiment.probes[5][:: options.every])
            sys.stderr.write(f"seed {seed}, {name}: {len(found[name])} responses\n")
    table = [
        {"base as": name, "method": method, "responses": len(rows), **compared(rows, found["float32"], method)}
        for name, rows in found.items()
        for method in NAMES
    ]
    figures = {"base": options.base.name, "experiment": "facts", "seeds": options.seeds, "by_form": table}
    command = f"python -m benchmarks.provenance.narrow --data DATA --base BASES/{options.base.name}"
    report.write("provenance_narrow", figures, f"{command} --seeds {options.seeds} --every {options.every}", 0)


def _centred(scores: Sequence[torch.Tensor]) -> NDArray[np.float64]:
    """Scores (…, K) less their mean over organisations, all in one vector."""
    return torch.cat([(one - one.mean(-1, keepdim=True)).flatten() for one in scores]).double().numpy()


if __name__ == "__main__":
    main()
