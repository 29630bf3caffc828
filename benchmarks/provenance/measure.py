"""Runs experiments and keeps every score: one file for each federation, so that a run that stops can go on.

A federation's file is a list of asked responses: {round, right, kind, marked, familiarity, methods}, `familiarity` by
organisation, `methods` by name: (tokens (T, K) float32, response (K,) float64, organisations). Nothing is decided here;
tables.py reads the files.
"""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.in_process import address
from benchmarks.provenance.federation import federate
from benchmarks.provenance.tasks import EXPERIMENTS, Setting
from core.canonical import Address
from llm.batches import Example
from llm.determinism import reproducible
from llm.loss import answer_logits, answer_losses
from llm.model import Model, ModelSpec, load
from llm.per_row_adapters import per_row_adapters
from provenance.attribution import METHODS
from provenance.gradient import gradient
from provenance.method import Effort, Scores, Scoring, Subject, base_logprobs, logprobs_of, rows_of
from provenance.shapley import exact_shapley

RANK, ALPHA = 16, 32.0
FAST = ("gradient", "protoken", "direct-logit")
_FEW = 6
"""Organisations of which the slowest methods are asked, too, in the last round."""
_EVERY = 5
"""Of so many responses one is also asked about by slower methods and the controls."""
_POINTS = 4


def client_likelihood(subject: Subject, example: Example, effort: Effort) -> Scores:
    """Control: log p of the answer under the adapter that each client of the last round trained itself."""
    model, contributions = subject.model, subject.contributions
    tokens = torch.zeros(len(example) - example.prompt_length, len(contributions.candidates), dtype=torch.float64)
    with torch.no_grad(), model.without_adapter():
        for part, terms in contributions.clients(contributions.modules, effort.chunk or 16):
            with per_row_adapters(model, terms, contributions.scale):
                losses = answer_losses(model, rows_of(subject, example, part.stop - part.start))
            tokens[:, part] = -losses.view(part.stop - part.start, -1).double().cpu().T
    return _control(tokens, contributions.candidates)


def head_only(subject: Subject, example: Example, effort: Effort) -> Scores:  # noqa: ARG001
    """Control: ProToken's score of lm_head alone. No adapter sits there, so every client's is the chosen logit."""
    count = len(example) - example.prompt_length
    tokens = torch.zeros(count, len(subject.contributions.candidates), dtype=torch.float64)
    return _control(tokens, subject.contributions.candidates)


def path(subject: Subject, example: Example, effort: Effort) -> Scores:
    """`shapley` with own-position gradients for its tokens: the response's scores are the same, at a pass a point."""
    nodes, weights = np.polynomial.legendre.leggauss(effort.points)
    parts = []
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        with subject.model.scaled_adapter((node + 1) / 2):
            parts.append((0.5 * weight, gradient(subject, example, effort)))
    tokens, response = (sum(w * getattr(s, name) for w, s in parts) for name in ("tokens", "response"))
    reached, base = logprobs_of(subject, example), base_logprobs(subject, example)
    return Scores(subject.contributions.organisations, tokens, response, reached, base, reached)


def exact(subject: Subject, example: Example, effort: Effort) -> Scores:  # noqa: ARG001
    """Shapley values from all coalitions: what faithfulness is measured against."""
    tokens = exact_shapley(subject, example)
    return _control(tokens, subject.contributions.organisations)


def update_norm(subject: Subject, example: Example, effort: Effort) -> Scores:
    """Control: the size ‖Σ_modules δ_k‖ of each contribution, whatever was asked."""
    total = torch.zeros(len(subject.contributions.organisations), dtype=torch.float64)
    for part, terms in subject.contributions.chunks(effort.chunk):
        for found in terms.values():
            for left, right in found:
                gram = (left.transpose(1, 2) @ left) * (right @ right.transpose(1, 2))
                total[part] += gram.sum(dim=(1, 2)).double().cpu()
    count = len(example) - example.prompt_length
    tokens = total.sqrt().expand(count, -1) / count
    return _control(tokens, subject.contributions.organisations)


def chance(subject: Subject, example: Example, effort: Effort) -> Scores:  # noqa: ARG001
    """Control: numbers drawn at random."""
    seed = int.from_bytes(hashlib.sha256(repr(example.tokens).encode()).digest()[:7], "big")
    source = torch.Generator().manual_seed(seed)
    count = len(example) - example.prompt_length
    tokens = torch.randn(count, len(subject.contributions.organisations), generator=source, dtype=torch.float64)
    return _control(tokens, subject.contributions.organisations)


CONTROLS: Mapping[str, Scoring] = {
    "client likelihood": client_likelihood,
    "lm_head only": head_only,
    "update norm": update_norm,
    "random": chance,
}


def run(experiment: str, base: str, setting: Setting, folder: Path) -> Path:
    """Train one federation and ask about its probes; returns its file, which is left alone if it is there."""
    file = folder / f"{experiment}-{base}-{setting.domain or 'all'}-{setting.seed}.pt"
    if file.exists():
        return file
    started = time.perf_counter()
    task = EXPERIMENTS[experiment](setting)
    rows: list[dict[str, Any]] = []
    for number, subject in enumerate(federate(setting.model, task.members, task.plan, setting.seed)):
        subject.model.set_adapter(subject.adapter)
        few = number == len(task.plan.rounds) - 1 and len(task.members) <= _FEW
        for i, probe in enumerate(task.probes.get(number, ())):
            right = [address(place) for place in probe.right]
            found = ask(subject, probe.example, _methods(some=i % _EVERY == 0, few=few))
            rows.append({"round": number, "right": right, "kind": probe.kind, "marked": probe.marked, **found})
    where = {"experiment": experiment, "base": base, "domain": setting.domain, "seed": setting.seed}
    save({**where, "rows": rows, "seconds": time.perf_counter() - started}, file)
    return file


def model_of(base: Path, quantisation: str = "none") -> Model:
    """A base with a fresh adapter of the size that all experiments use."""
    return load(ModelSpec(str(base), quantisation, RANK, ALPHA, "cpu"))  # type: ignore[arg-type]


def _methods(*, some: bool, few: bool) -> dict[str, Scoring]:
    found: dict[str, Scoring] = {name: METHODS[name].score for name in FAST}
    if some:
        found |= {"ablation": METHODS["ablation"].score, **CONTROLS}
    if some and few:
        found |= {"shapley": path, "exact shapley": exact}
    return found


def ask(subject: Subject, example: Example, methods: Mapping[str, Scoring]) -> dict[str, Any]:
    """What methods, `gradient` among them, and familiarity say of a response."""
    who = subject.contributions.organisations
    with reproducible(subject.model.device, 0):
        found = {name: method(subject, example, Effort(points=_POINTS)) for name, method in methods.items()}
        familiar = subject.familiarity(example, found["gradient"])
        greedy = _is_greedy(subject, example)
    return {
        "greedy": greedy,
        "logprobs": found["gradient"].logprobs,
        "base": found["gradient"].base,
        "familiarity": dict(zip(who, familiar.tolist(), strict=True)),
        "methods": {name: (s.tokens.float(), s.response, s.organisations) for name, s in found.items()},
    }


def _is_greedy(subject: Subject, example: Example) -> bool:
    """Whether the model itself answers so: each token the likeliest after those before it."""
    with torch.no_grad():
        logits, wanted = answer_logits(subject.model, rows_of(subject, example))
    return bool((logits.argmax(-1) == wanted).all())


def _control(tokens: torch.Tensor, who: tuple[Address, ...]) -> Scores:
    nothing = torch.zeros(len(tokens), dtype=torch.float64)
    return Scores(who, tokens, tokens.sum(0), nothing, nothing, None)


def save(value: Mapping[str, Any], file: Path) -> None:
    """Write what was measured, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(value), file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)
