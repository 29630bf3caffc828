"""Runs attribution experiments and keeps every score: one file for each federation, so that a stopped run can go on.

A file holds a list of responses: {round, right, kind, marked, familiarity, methods}, `familiarity` by organisation,
`methods` by name: (tokens (T, K) float32, response (K,) float64, organisations). Nothing is decided here; tables.py
reads the files.
"""

import hashlib
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.in_process import address
from benchmarks.provenance.experiments import EXPERIMENTS, Experiment, ExperimentSettings
from benchmarks.provenance.federation import subjects
from core.canonical import Address
from core.storage import blobs
from llm.batches import Example
from llm.determinism import reproducible
from llm.loss import answer_logits, answer_losses
from llm.model import Model, ModelSpec, Quantisation, load
from llm.per_row_adapters import per_row_adapters
from provenance.attribution import METHODS
from provenance.gradient import gradient
from provenance.method import Effort, Scores, Scoring, Subject, base_logprobs, logprobs_of, rows_of
from provenance.shapley import exact_shapley

RANK, ALPHA = 16, 32.0
FAST = ("gradient", "protoken", "direct-logit")
BY_PASSES = ("marginal", "ablation")
"""Methods that take forward passes for each organisation."""
_FEW, _MANY = 6, 20
"""Most organisations for which the slowest methods run, too, and for which `BY_PASSES` do, in the last round."""
_EVERY = 5
"""One response in so many is also attributed by slower methods and the controls."""
_POINTS = 4
"""Points of the path that `shapley` integrates along."""


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
    """Control: ProToken's score of lm_head alone. No adapter sits there, so all clients score the same."""
    count = len(example) - example.prompt_length
    tokens = torch.zeros(count, len(subject.contributions.candidates), dtype=torch.float64)
    return _control(tokens, subject.contributions.candidates)


def path(subject: Subject, example: Example, effort: Effort) -> Scores:
    """`shapley` with own-position gradients for its tokens: the same scores of the response, at one pass a point."""
    # Gauss-Legendre nodes lie in (-1, 1); the path runs from 0 to 1.
    nodes, weights = np.polynomial.legendre.leggauss(effort.points)
    parts = []
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        with subject.model.scaled_adapter((node + 1) / 2):
            parts.append((0.5 * weight, gradient(subject, example, effort)))
    tokens, response = (sum(w * getattr(s, name) for w, s in parts) for name in ("tokens", "response"))
    reached, base = logprobs_of(subject, example), base_logprobs(subject, example)
    return Scores(subject.contributions.organisations, tokens, response, reached, base, reached)


def exact(subject: Subject, example: Example, effort: Effort) -> Scores:  # noqa: ARG001
    """Shapley values from all coalitions: the reference of faithfulness."""
    tokens = exact_shapley(subject, example)
    return _control(tokens, subject.contributions.organisations)


def update_norm(subject: Subject, example: Example, effort: Effort) -> Scores:
    """Control: the size ‖Σ_modules δ_k‖ of each contribution, whatever the response."""
    total = torch.zeros(len(subject.contributions.organisations), dtype=torch.float64)
    for part, terms in subject.contributions.chunks(effort.chunk):
        for found in terms.values():
            for left, right in found:
                gram = (left.transpose(1, 2) @ left) * (right @ right.transpose(1, 2))
                total[part] += gram.sum(dim=(1, 2)).double().cpu()
    count = len(example) - example.prompt_length
    tokens = total.sqrt().expand(count, -1) / count
    return _control(tokens, subject.contributions.organisations)


def random_scores(subject: Subject, example: Example, effort: Effort) -> Scores:  # noqa: ARG001
    """Control: scores drawn at random."""
    # Seeded by the response: the same response gets the same scores in every run.
    seed = int.from_bytes(hashlib.sha256(repr(example.tokens).encode()).digest()[:7], "big")
    source = torch.Generator().manual_seed(seed)
    count = len(example) - example.prompt_length
    tokens = torch.randn(count, len(subject.contributions.organisations), generator=source, dtype=torch.float64)
    return _control(tokens, subject.contributions.organisations)


CONTROLS: Mapping[str, Scoring] = {
    "client likelihood": client_likelihood,
    "lm_head only": head_only,
    "update norm": update_norm,
    "random": random_scores,
}


def run(
    name: str,
    base: str,
    settings: ExperimentSettings,
    folder: Path,
    shaped: Callable[[Experiment], Experiment] = lambda experiment: experiment,
) -> Path:
    """Train one federation and attribute its probes; returns its file, which is left alone if it is there.

    `shaped` makes another experiment of the one with this name.
    """
    file = folder / f"{name}-{base}-{settings.domain or 'all'}-{settings.seed}.pt"
    if file.exists():
        return file
    started = time.perf_counter()
    experiment = shaped(EXPERIMENTS[name](settings))
    rows: list[dict[str, Any]] = []
    trained = subjects(settings.model, experiment.members, experiment.schedule, settings.seed)
    for number, subject in enumerate(trained):
        subject.model.set_adapter(subject.adapter)
        last, members = number == len(experiment.schedule.rounds) - 1, len(experiment.members)
        for i, probe in enumerate(experiment.probes.get(number, ())):
            methods: dict[str, Scoring] = {method: METHODS[method].score for method in FAST}
            often = i % _EVERY == 0
            if often or (last and members <= _MANY):
                methods |= {method: METHODS[method].score for method in BY_PASSES}
            if often:
                methods |= {**CONTROLS} | (
                    {"shapley": path, "exact shapley": exact} if last and members <= _FEW else {}
                )
            right = [address(index) for index in probe.right]
            found = attributed(subject, probe.example, methods)
            rows.append({"round": number, "right": right, "kind": probe.kind, "marked": probe.marked, **found})
    where = {"experiment": name, "base": base, "domain": settings.domain, "seed": settings.seed}
    save({**where, "rows": rows, "seconds": time.perf_counter() - started}, file)
    return file


def model_of(base: Path, quantisation: Quantisation = "none") -> Model:
    """A base with a fresh adapter of the size that all experiments use."""
    return load(ModelSpec(str(base), quantisation, RANK, ALPHA, device="cpu"))


def attributed(subject: Subject, example: Example, methods: Mapping[str, Scoring]) -> dict[str, Any]:
    """Scores of a response by some methods, `gradient` among them, and its familiarity to every organisation."""
    organisations = subject.contributions.organisations
    with reproducible(subject.model.device, 0):
        found = {name: method(subject, example, Effort(points=_POINTS)) for name, method in methods.items()}
        familiar = subject.familiarity(example, found["gradient"])
        with torch.no_grad():
            logits, answer = answer_logits(subject.model, rows_of(subject, example))
    return {
        # Whether greedy decoding gives this answer: then the probe's words are the model's own.
        "greedy": bool((logits.argmax(-1) == answer).all()),
        "logprobs": found["gradient"].logprobs,
        "base": found["gradient"].base,
        "familiarity": dict(zip(organisations, familiar.tolist(), strict=True)),
        "methods": {name: (s.tokens.float(), s.response, s.organisations) for name, s in found.items()},
    }


def _control(tokens: torch.Tensor, organisations: tuple[Address, ...]) -> Scores:
    nothing = torch.zeros(len(tokens), dtype=torch.float64)
    return Scores(organisations, tokens, tokens.sum(0), nothing, nothing, None)


def save(value: Mapping[str, Any], file: Path) -> None:
    """Write a federation's scores, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(dict(value), buffer)
    blobs.write(file, buffer.getbuffer())
