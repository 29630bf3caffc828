r"""Familiarity: how strongly low-rank terms answer to a text, for their size.

    f = mean_{modules, positions} ln(‖δ x‖ / ‖δ‖_F)

with δ = L R, and x (positions, in) the inputs of the modules that read in feed-forward layers. Training leaves
δ = Σ_i g_i x_iᵀ, sums over the inputs of training, so that ‖δ x‖ is large for an x like those, whatever sign δ gives
the output. Feed-forward layers are key-value memories, of which these modules hold the keys (Geva et al., 2021,
arXiv 2012.14913). The size of δ is divided out: longer training is no familiarity.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from core.adapter import AdapterState
from llm.batches import Example, collate
from llm.differentiate import Seen, hooked
from llm.loss import answer_logits
from llm.model import Model

_KEYS = frozenset({"gate_proj", "up_proj"})
_NONE = 1e-30
"""‖δ x‖² / ‖δ‖² of a δ that is zero."""


def keys(modules: Sequence[str]) -> tuple[str, ...]:
    """The modules that read in feed-forward layers; all, where the model has none by these names."""
    return tuple(name for name in modules if name.rpartition(".")[2] in _KEYS) or tuple(modules)


def inputs_of(model: Model, tokens: Sequence[int], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The inputs of modules, (positions, in), when the model as it now stands reads a text."""
    # All prompt and no answer: not one position goes through the output layer.
    batch = model.entered(collate([Example(tuple(tokens), len(tokens))], [[0]]).to(model.device))
    with torch.no_grad(), reading(model, names) as inputs:
        answer_logits(model, batch)
    return inputs


@contextmanager
def reading(model: Model, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, the model reads one text; then the dict has the inputs of the modules, (positions, in)."""
    seen, inputs = Seen(model.device), dict[str, torch.Tensor]()
    with hooked([(model.layers[name], seen.hook(name)) for name in names]):
        yield inputs
    # Some decoders (OPT) flatten rows and positions inside.
    inputs |= {name: found.flatten(0, -2) for name, found in seen.inputs.items()}


def answered(left: torch.Tensor, right: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """The mean over positions of ln(‖δ_k x‖ / ‖δ_k‖_F): (K,).

    `left` (K or 1, out, r) and `right` (K or 1, r, in) are the factors of δ_k; `inputs` (positions, in).
    """
    # ‖L R x‖² = (R x)ᵀ (Lᵀ L) (R x): nothing as wide as the output is ever computed.
    gram = left.mT @ left
    inner = inputs.to(right.dtype) @ right.mT
    squares = ((inner @ gram) * inner).sum(-1)
    sizes = (gram * (right @ right.mT)).sum((1, 2)).unsqueeze(1)
    ratios = torch.where(sizes > 0, squares / sizes, 0)
    return 0.5 * ratios.clamp_min(_NONE).log().mean(1)


def familiarities(
    model: Model, adapters: Sequence[AdapterState], texts: Sequence[Sequence[int]]
) -> Iterator[tuple[float, ...]]:
    """Yield each adapter's familiarity with each text, given as tokens, as the model now stands: one pass a text.

    A text is read alone, so that nothing depends on the other texts. To the empty text all are equally familiar.
    """
    names = keys(tuple(model.layers))
    factors = {
        name: [
            tuple(torch.tensor(a[f"{name}.{factor}"], device=model.device)[None] for factor in ("lora_B", "lora_A"))
            for a in adapters
        ]
        for name in names
    }
    for tokens in texts:
        if not tokens:
            yield (0.0,) * len(adapters)
            continue
        inputs = inputs_of(model, tokens, names)
        logs = [torch.cat([answered(b, a, inputs[name]) for b, a in factors[name]]) for name in names]
        yield tuple(torch.stack(logs).double().mean(0).tolist())
