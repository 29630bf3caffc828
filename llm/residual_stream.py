"""The residual stream of a decoder: the layers that write to it, the norms behind them, and the head that reads it.

Known are the decoders whose blocks add `self_attn.o_proj` and `mlp.down_proj` to one residual stream that one RMSNorm
and a linear head read: Llama, Qwen 2 and 3, Gemma 3, SmolLM3 and their like. Gemma norms what it adds once more.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from core.errors import ModelError
from llm.differentiate import Seen, hooked
from llm.model import Model

_PROBE = 4
"""Tokens of the pass that shows whether a decoder is built as this module says."""
_TOLERANCE = 0.1
"""Of the largest logit: what bfloat16 loses in many blocks is less, and another build is off by more."""
_PROBED: WeakKeyDictionary[Model, bool] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class ResidualStream:
    """`writers`: name of each layer that writes to the residual stream, and the norm behind it, if any."""

    writers: Mapping[str, torch.nn.Module | None]
    mlps: Mapping[str, torch.nn.Module]
    """The MLP of each block, by its name."""
    embedding: torch.nn.Module
    norm: torch.nn.Module
    head: torch.nn.Linear

    @property
    def last_block(self) -> tuple[str, str]:
        """The names of the last block's attention output projection and of its MLP."""
        mlp = list(self.mlps)[-1]
        return f"{mlp.removesuffix('mlp')}self_attn.o_proj", mlp


def residual_stream(model: Model) -> ResidualStream:
    """The residual stream of a model; raises ModelError for a decoder that is not built as this module says."""
    network: Any = model.module.get_base_model()
    try:
        stack = network.model
        writers: dict[str, torch.nn.Module | None] = {}
        mlps: dict[str, torch.nn.Module] = {}
        for i, block in enumerate(stack.layers):
            prefix = f"model.layers.{i}."
            # Elsewhere post_attention_layernorm is the norm before the MLP.
            sandwich = hasattr(block, "post_feedforward_layernorm")
            writers[f"{prefix}self_attn.o_proj"] = block.post_attention_layernorm if sandwich else None
            writers[f"{prefix}mlp.down_proj"] = block.post_feedforward_layernorm if sandwich else None
            mlps[f"{prefix}mlp"] = block.mlp
        embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
        stream = ResidualStream(writers, mlps, embedding, stack.norm, head)
        known = any(name in model.layers for name in writers) and len(head.weight) == network.config.vocab_size
    except AttributeError as error:
        raise ModelError(f"attribution: expected a decoder like Llama's, got {type(network).__name__}") from error
    # A capped logit is not linear in what was written: its parts would not add up to it where it is large.
    capped = getattr(network.config, "final_logit_softcapping", None)
    if not known or capped or not _adds_up(model, stream):
        raise ModelError(f"attribution: expected a decoder like Llama's, got {type(network).__name__}")
    return stream


@dataclass(frozen=True, eq=False)
class Writes:
    """What each writer wrote to the residual stream at some positions, filled by one forward pass.

    `inputs` (positions, in) and `outputs` (positions, width) have each writer by its name, of one with an adapter its
    base layer without it as NAME.base, the input embedding as `embedding` and the last norm as `norm`.
    """

    stream: ResidualStream
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]

    def at(self, where: Any) -> "Writes":
        """The same on one device at some places, an index into (rows, positions) that leaves one axis for them."""
        return Writes(
            self.stream,
            {name: tensor[where] for name, tensor in self.inputs.items()},
            {name: tensor.to(self.inputs[name].device)[where] for name, tensor in self.outputs.items()},
        )

    def readers(self, tokens: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """How `tokens` (T,), one a position, read each adapted writer, (T, width); the base's part of the logits (T,).

        Reading is linear once the denominators of norms are held fixed.
        """
        head = self.stream.head
        rows = tokens.to(head.weight.device)
        last = _frozen(self.stream.norm, self.inputs["norm"]) * head.weight[rows].to(tokens.device)
        base = (last.double() * self.outputs["embedding"].double()).sum(-1)
        if head.bias is not None:
            base = base + head.bias[rows].to(tokens.device).double()
        readers = {}
        for name, norm in self.stream.writers.items():
            reader = last if norm is None else last * _frozen(norm, self.outputs[name])
            without = self.outputs.get(f"{name}.base")
            if without is not None:
                readers[name] = reader
            base = base + (reader.double() * (self.outputs[name] if without is None else without).double()).sum(-1)
        return readers, base


def watched_writes(model: Model) -> AbstractContextManager[Writes]:
    """Inside, a forward pass fills the value; raises ModelError for a decoder that is not built as this module says."""
    # Here and not inside: the model is looked at before anything else is in place on it.
    return _watching(model, residual_stream(model))


@contextmanager
def _watching(model: Model, stream: ResidualStream) -> Iterator[Writes]:
    seen = Seen(model.device)
    watched = {"embedding": stream.embedding, "norm": stream.norm}
    for name in stream.writers:
        watched[name] = model.module.get_base_model().get_submodule(name)
        if name in model.layers:
            watched[f"{name}.base"] = model.layers[name].get_base_layer()
    with hooked([(module, seen.hook(name)) for name, module in watched.items()]):
        yield Writes(stream, seen.inputs, seen.outputs)


def _adds_up(model: Model, stream: ResidualStream) -> bool:
    """Whether what is written, read as `Writes` reads it, gives the logits; looked at once for a model."""
    if model not in _PROBED:
        tokens = torch.arange(_PROBE, device=model.device).remainder(len(stream.head.weight)).unsqueeze(0)
        with torch.no_grad(), model.without_adapter(), model.autocast(), _watching(model, stream) as writes:
            logits = model.module.get_base_model()(input_ids=tokens).logits[0].float()
        highest, likeliest = logits.max(-1)
        _, base = writes.at((0, slice(None))).readers(likeliest)
        _PROBED[model] = bool((base - highest).abs().max() <= _TOLERANCE * logits.abs().max())
    return _PROBED[model]


def _frozen(norm: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """The vector c with norm(h) = c ⊙ h, for h of shape (…, width): gain / rms(h), its denominator a constant."""
    eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    # The gain is read off the norm itself, whichever way it keeps it (Gemma keeps it less one).
    ones = torch.ones(hidden.shape[-1], device=hidden.device, dtype=hidden.dtype)
    gain: torch.Tensor = norm(ones) * (1.0 + eps) ** 0.5
    return gain.to(hidden.device) * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)
