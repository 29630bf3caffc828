"""Many adapters in one forward pass: each row of a batch computes with low-rank terms of its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from llm.differentiate import Hook, hooked
from llm.model import Model

Pair = tuple[torch.Tensor, torch.Tensor]
"""left (rows or 1, out, r) and right (rows or 1, r, in)."""


@contextmanager
def per_row_adapters(model: Model, terms: Mapping[str, Sequence[Pair]], scale: float) -> Iterator[None]:
    """Inside, row b of every input x also gets scale · Σ left_b right_b x at the modules that `terms` names."""
    with hooked([(model.layers[name], _row_hook(pairs, scale)) for name, pairs in terms.items()]):
        yield


def _row_hook(pairs: Sequence[Pair], scale: float) -> Hook:
    def add(_module: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        with torch.autocast(output.device.type, enabled=False):
            for left, right in pairs:
                inner = inputs[0].to(right) @ right.mT
                output = output + (scale * inner @ left.mT).to(output)
        return output

    return add
