r"""Attention whose backward pass can be kept to each position's own path.

A token's score sums gradients at the position that predicts it. One backward pass of a sum of token scores mixes
them: through keys and values a later token's gradient reaches earlier positions. Here a forward pass is ordinary
attention, and its backward pass, when `Paths.own` is set, keeps of the gradients of keys and values only the part that
comes from the position's own query:

    o_t = Σ_s P_ts v_s,  P_t = softmax_s(q_t·k_s + mask),  dS_ts = P_ts (do_t·v_s − do_t·o_t)
    all paths:  dq_t = Σ_s dS_ts k_s   dk_s = Σ_t dS_ts q_t   dv_s = Σ_t P_ts do_t
    own path:   dq_t = Σ_s dS_ts k_s   dk_t = dS_tt q_t       dv_t = P_tt do_t

With it the gradient of a sum of token scores is, at each position and at every depth, the exact gradient of that
position's own score with respect to the activations there. Both backward passes can follow one forward pass.
The scale, rotary positions, norms of queries and keys, grouped heads and sliding windows happen outside, or in the
mask.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from core.errors import ModelError
from llm.model import Model

_NAME = "foedus"


@dataclass
class Paths:
    """Which paths the backward passes of one forward pass follow; may be changed between them."""

    own: bool = False
    calls: int = 0
    """How often this attention ran during the forward pass."""


_PATHS: ContextVar[Paths] = ContextVar("paths")


@contextmanager
def switchable_attention(model: Model) -> Iterator[Paths]:
    """Inside, forward passes use this attention; the value sets the paths of their backward passes, afterwards too."""
    # The setting itself: set_attn_implementation walks all modules, twice a call.
    config, paths = model.module.get_base_model().config, Paths()
    before, token = config._attn_implementation, _PATHS.set(paths)
    config._attn_implementation = _NAME
    try:
        yield paths
    finally:
        config._attn_implementation = before
        _PATHS.reset(token)


class _Attention(torch.autograd.Function):
    """(rows, heads, positions, width) each; `mask` is added to the scores."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        weights = torch.softmax((query @ key.transpose(2, 3)).add_(mask), dim=-1)
        output = weights @ value
        ctx.save_for_backward(query, key, value, weights, output)
        ctx.paths = _PATHS.get()
        ctx.paths.calls += 1
        return output

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, weights, output = ctx.saved_tensors
        (grad,) = grads
        mean = (grad * output).sum(-1, keepdim=True)
        scores = (grad @ value.transpose(2, 3)).sub_(mean).mul_(weights)
        if ctx.paths.own:
            to_key, to_value = (matrix.diagonal(dim1=2, dim2=3).unsqueeze(-1) for matrix in (scores, weights))
            return scores @ key, to_key * query, to_value * grad, None
        return scores @ key, scores.transpose(2, 3) @ query, weights.transpose(2, 3) @ grad, None


def _attention(  # noqa: PLR0913, PLR0917 - the signature is transformers'
    module: torch.nn.Module,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    if attention_mask is None or softcap is not None or s_aux is not None:
        raise ModelError("attribution: expected attention with a mask, without capped scores and without sinks")
    # Own-position gradients are small differences of large sums: in bfloat16 they would drown in rounding.
    wide = torch.promote_types(query.dtype, torch.float32)
    groups = query.shape[1] // key.shape[1]
    with torch.autocast(query.device.type, enabled=False):
        key, value = (tensor.to(wide).repeat_interleave(groups, dim=1) for tensor in (key, value))
        mask = attention_mask.to(wide)
        output: torch.Tensor = _Attention.apply(query.to(wide) * scaling, key, value, mask)  # type: ignore[no-untyped-call]
    return output.transpose(1, 2).to(query.dtype).contiguous(), None


AttentionInterface.register(_NAME, _attention)
# Without a mask of its own an attention function is handed none, and causality is lost without a word.
AttentionMaskInterface.register(_NAME, eager_mask)
