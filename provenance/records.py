r"""Which of an organisation's own records taught a token: inner products of gradients in the space of B.

    score_n(t) = ⟨∇_B log p(y_t), ∇_B ℓ_n⟩ = s² Σ_modules Σ_p (g_t · h_p) (A x_t · A x_p)

ℓ_n is the mean log p of record n's answer, p runs over its positions; x is a module's input, g the gradient of the
token's log p at the module's output along its own position's path, h that of ℓ_n along all paths, s the adapter's
scale. To first order it is by how much the token's log p would rise if B went a step of size 1 along the record's
gradient: TracIn (Pruthi et al., 2020, arXiv 2002.08484, equation 1) at one checkpoint, the served adapter, and for B
alone. The run's shared A is the sketch of the inputs: no gradient as large as the model's weights is ever made, nor one
as large as B. The modules are those of the upper half of the adapted blocks: half the backward pass, and on the samples
the same records come first ([figures](../docs/results/attribution.md)).

Whoever asks needs the records: it is for their owner, at home, and nothing of it is sent anywhere.
"""

import re
from collections.abc import Mapping, Sequence

import torch

from core.adapter import AdapterState
from core.errors import UsageError
from core.storage.run_folder import RunFolder
from llm.batches import IGNORED, Batch, Example, collate, encode, encode_prompt
from llm.determinism import reproducible
from llm.differentiate import Forward, forward
from llm.evaluate import route
from llm.model import Model
from llm.records import Record
from llm.served import serving
from provenance.trace import TokenTrace

_ROWS = 16
"""Packed rows of records that share a forward pass."""
_ROW = 64
"""Tokens of a row, where no record is longer: attention over a few records costs less than over many."""


def check_one_answers(run: RunFolder) -> None:
    """Raise UsageError where an ensemble answers: it has no one B."""
    lanes = [lane for lane in range(len(run.genesis.lanes)) if run.members(lane)]
    if run.genesis.composition == "ensemble" and len(lanes) > 1:
        raise UsageError(f"--records: expected one adapter that answers, got an ensemble of {len(lanes)}")


def scores_of_records(run: RunFolder, trace: TokenTrace, records: Sequence[Record], base: str = "") -> torch.Tensor:
    """Score every record for every token of a trace of what the run serves: (T, N), float64 on the CPU.

    Raises UsageError where an ensemble answers.
    """
    check_one_answers(run)
    served = serving(run, base)
    model, adapters = served.model, served.adapter
    start = encode_prompt(model.tokenizer, trace.prompt)
    adapter = adapters.states[route(model, adapters, [start])[0]]
    example = Example((*start, *(token.token for token in trace.tokens)), len(start))
    return record_scores(model, adapter, example, records, run.genesis.training.max_length)


def record_scores(
    model: Model, adapter: AdapterState, example: Example, records: Sequence[Record], max_length: int
) -> torch.Tensor:
    """Score records for the answer tokens of an example: (T, N), float64 on the CPU.

    Records are cut to `max_length` tokens, as in training; one that leaves no answer scores 0.
    """
    model.set_adapter(adapter)
    scores = torch.zeros(len(example) - example.prompt_length, len(records), dtype=torch.float64)
    examples = [encode(model.tokenizer, record, max_length) for record in records]
    rows = model.rows(examples, max(_ROW, *map(len, examples)))
    with reproducible(model.device, 0):
        modules = upper(model.layers)
        asked = forward(model, _entered(model, collate([example], [(0,)])), modules)
        own = asked.gradients(asked.logprobs.sum(), own=True)
        # A position predicts the next token.
        predicting = slice(example.prompt_length - 1, len(example) - 1)
        gradients = {name: gradient[0, predicting].float() for name, gradient in own.items()}
        inputs = {name: _sketch(model, name, asked)[predicting] for name in own}
        for first in range(0, len(rows), _ROWS):
            batch = collate(examples, rows[first : first + _ROWS])
            if not len(batch):
                continue
            seen = forward(model, _entered(model, batch), modules, own_paths=False)
            owners = batch.owners.flatten()
            sums = torch.zeros(len(scores), len(owners), device=model.device)
            for name, taught in seen.gradients(_mean_of_answers(seen, batch)).items():
                scale = next(iter(model.layers[name].scaling.values())) ** 2
                outer = gradients[name] @ taught.float().flatten(0, 1).T
                sums += scale * outer * (inputs[name] @ _sketch(model, name, seen).T)
            scores.index_add_(1, owners.clamp(min=0), sums.double().cpu() * (owners >= 0))
    return scores


def upper(layers: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Module]:
    """The layers of the upper half, rounded up, of the blocks that have some."""
    of = {name: [int(number) for number in re.findall(r"\.(\d+)\.", name)][:1] for name in layers}
    blocks = sorted({tuple(number) for number in of.values()})
    kept = set(blocks[len(blocks) // 2 :])
    return {name: layer for name, layer in layers.items() if tuple(of[name]) in kept}


def _entered(model: Model, batch: Batch) -> Batch:
    return model.entered(batch.to(model.device))


def _sketch(model: Model, name: str, run: Forward) -> torch.Tensor:
    """A x of every position of a forward pass, rows one after another: (positions, r)."""
    _, a = model.served(name)
    return run.inputs[name].float().flatten(0, 1) @ a.to(run.logits.device).float().T


def _mean_of_answers(run: Forward, batch: Batch) -> torch.Tensor:
    """The sum over a batch's records of the mean log p of their answer tokens."""
    owners = batch.owners[batch.targets != IGNORED].to(run.logprobs.device)
    return (run.logprobs / torch.bincount(owners)[owners]).sum()
