r"""Familiarity: how strongly each contribution answers to a text, for its size; a verdict combines it with the scores.

    f_k = mean_{modules, positions} ln(‖δ_k x‖ / ‖δ_k‖_F) − mean_j (the same of organisation j)

over prompt and response, as the served model reads them (`llm/familiarity.py` gives the reason).

Scores measure an organisation's effect on the very tokens that were chosen, and are hardly more than noise where the
base alone would have said nearly the same. Familiarity knows nothing of the tokens' gradients: it compares the text
with what an organisation trained on. So it is no score and adds up to nothing.
"""

from collections.abc import Mapping

import torch

from llm.familiarity import answered, keys
from provenance.contributions import Contributions
from provenance.terms import joined


def strength(contributions: Contributions, inputs: Mapping[str, torch.Tensor], size: int | None = None) -> torch.Tensor:
    """Return f (K,) of every contributor before it is compared with the others', float64 on the CPU.

    `inputs` (positions, in) are those of the modules that `keys` names; `size` organisations are looked at at a time.
    """
    names = keys(contributions.modules)
    strengths = torch.zeros(len(contributions.organisations), dtype=torch.float64)
    for part, terms in contributions.chunks(size):
        logs = torch.stack([answered(*joined(terms[name]), inputs[name]) for name in names])
        strengths[part] = logs.double().mean(0).cpu()
    return strengths
