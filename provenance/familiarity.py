r"""Familiarity: how strongly each contribution answers to a text, for its size. A verdict's second witness.

    f_k = mean_{modules, positions} ln(‖δ_k x‖ / ‖δ_k‖_F) − mean_j (the same of organisation j)

with x (positions, in) the inputs of the modules that read in feed-forward layers, over prompt and response. Training
leaves δ_k = Σ_i g_i x_iᵀ, sums over what was trained on, so that ‖δ_k x‖ is large for an x like those. Feed-forward
layers are key-value memories, of which these modules hold the keys (Geva et al., 2021, arXiv 2012.14913).

Scores say what an organisation did to the very tokens that were chosen, and are hardly more than noise where the base
alone would have said nearly the same. Familiarity knows nothing of the tokens' gradients: it tells whose text this is
like, not who raised a token. So it is no score and adds up to nothing.
"""

from collections.abc import Sequence

import torch

from core.canonical import Address
from llm.data import Example
from llm.differentiate import Seen, hooked
from llm.loss import answer_logits
from provenance.method import Subject, rows_of
from provenance.terms import Term

_KEYS = frozenset({"gate_proj", "up_proj"})
_NONE = 1e-30
"""‖δ_k x‖² / ‖δ_k‖² of a contribution that is zero."""


def familiarity(
    subject: Subject, example: Example, organisations: Sequence[Address], size: int | None = None
) -> torch.Tensor:
    """Return f (K,) of a prompt and its response, float64 on the CPU; 0 is what `organisations` have in the mean.

    The model holds the served adapter. `size` organisations are looked at at a time.
    """
    contributions = subject.contributions
    found = strength(subject, example, size)
    chosen = found[[contributions.position(organisation) for organisation in organisations]]
    return chosen - chosen.mean()


def strength(subject: Subject, example: Example, size: int | None = None) -> torch.Tensor:
    """Return f (K,) of everybody who contributed, before it is compared with the others'."""
    contributions, seen = subject.contributions, Seen()
    names = keys(contributions.modules)
    hooks = [(subject.model.layers[name], seen.hook(name)) for name in names]
    with torch.no_grad(), hooked(hooks):
        answer_logits(subject.model, rows_of(subject, example))
    found = torch.zeros(len(contributions.organisations), dtype=torch.float64)
    for part, terms in contributions.chunks(size):
        logs = torch.stack([_answered(_joined(terms[name]), seen.inputs[name][0]) for name in names])
        found[part] = logs.double().mean(0).cpu()
    return found


def keys(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Those modules that read in feed-forward layers; all, where the model has none by their names."""
    return tuple(name for name in modules if name.rpartition(".")[2] in _KEYS) or modules


def _answered(term: Term, inputs: torch.Tensor) -> torch.Tensor:
    """The mean over positions of ln(‖δ_k x‖ / ‖δ_k‖_F): (K,)."""
    left, right = term
    gram = left.mT @ left
    inner = inputs.to(right.dtype) @ right.mT
    squares = ((inner @ gram) * inner).sum(-1)
    sizes = (gram * (right @ right.mT)).sum((1, 2)).unsqueeze(1)
    ratios = torch.where(sizes > 0, squares / sizes, 0)
    return 0.5 * ratios.clamp_min(_NONE).log().mean(1)


def _joined(terms: tuple[Term, ...]) -> Term:
    """Several terms as one of a larger rank."""
    if len(terms) == 1:
        return terms[0]
    count = max(len(factor) for term in terms for factor in term)
    lefts = [term.left.expand(count, -1, -1) for term in terms]
    rights = [term.right.expand(count, -1, -1) for term in terms]
    return Term(torch.cat(lefts, dim=2), torch.cat(rights, dim=1))
