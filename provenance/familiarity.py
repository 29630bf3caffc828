r"""Familiarity: how strongly each contribution answers to a text, for its size. A verdict's second witness.

    f_k = mean_{modules, positions} ln(‖δ_k x‖ / ‖δ_k‖_F) − mean_j (the same of organisation j)

over prompt and response, as the served model reads them (llm/familiarity.py, which says why).

Scores say what an organisation did to the very tokens that were chosen, and are hardly more than noise where the base
alone would have said nearly the same. Familiarity knows nothing of the tokens' gradients: it tells whose text this is
like, not who raised a token. So it is no score and adds up to nothing.
"""

from collections.abc import Sequence

import torch

from core.canonical import Address
from llm.batches import Example
from llm.familiarity import answered, inputs_of, keys
from provenance.method import Subject
from provenance.terms import Term


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
    contributions = subject.contributions
    names = keys(contributions.modules)
    inputs = inputs_of(subject.model, example.tokens, names)
    found = torch.zeros(len(contributions.organisations), dtype=torch.float64)
    for part, terms in contributions.chunks(size):
        logs = torch.stack([answered(*_joined(terms[name]), inputs[name]) for name in names])
        found[part] = logs.double().mean(0).cpu()
    return found


def _joined(terms: tuple[Term, ...]) -> Term:
    """Several terms as one of a larger rank."""
    if len(terms) == 1:
        return terms[0]
    count = max(len(factor) for term in terms for factor in term)
    lefts = [term.left.expand(count, -1, -1) for term in terms]
    rights = [term.right.expand(count, -1, -1) for term in terms]
    return Term(torch.cat(lefts, dim=2), torch.cat(rights, dim=1))
