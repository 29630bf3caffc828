"""A decoder of one block and a few numbers, all of them typed in, as a Model like any other.

    h = E[token] + o_proj(mean of v_proj(E[token]) over the positions so far),   h += down_proj(h)
    logits = head(norm(h))

Queries and keys are zero, so that attention is that mean.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core.adapter import AdapterState
from llm.model import Model, ModelSpec

V, O, DOWN = "model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"  # noqa: E741

Matrix = Sequence[Sequence[float]]


class RootMeanSquare(nn.Module):
    """h / rms(h), times a gain."""

    def __init__(self, gain: Sequence[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(gain))
        self.variance_epsilon = 0.0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True))


class _Attention(nn.Module):
    def __init__(self, value: Matrix, output: Matrix, config: PretrainedConfig) -> None:
        super().__init__()
        self.v_proj, self.o_proj, self.config = linear(value), linear(output), config

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        value, length = self.v_proj(hidden).unsqueeze(1), hidden.shape[1]
        mask = torch.full((length, length), -torch.inf).triu(1).expand(len(hidden), 1, -1, -1)
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        mixed, _ = attend(self, torch.zeros_like(value), torch.zeros_like(value), value, mask, scaling=1.0)
        return self.o_proj(mixed.flatten(2))


class _Block(nn.Module):
    def __init__(self, value: Matrix, output: Matrix, down: Matrix, config: PretrainedConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(value, output, config)
        self.mlp = nn.Sequential()
        self.mlp.add_module("down_proj", linear(down))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.self_attn(hidden)
        return hidden + self.mlp(hidden)


class Decoder(nn.Module):
    """The network; `head` (vocabulary, width) and `embedding` (vocabulary, width) are rows by token."""

    def __init__(self, embedding: Matrix, block: Sequence[Matrix], norm: nn.Module, head: Matrix) -> None:
        super().__init__()
        self.config = PretrainedConfig(vocab_size=len(head), attn_implementation="sdpa")
        self.model = nn.Module()
        self.model.embed = nn.Embedding.from_pretrained(torch.tensor(embedding))
        self.model.layers = nn.ModuleList([_Block(*block, self.config)])
        self.model.norm = norm
        self.lm_head = linear(head)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self, input_ids: torch.Tensor, past_key_values: Any = None, logits_to_keep: int = 0, **_options: Any
    ) -> SimpleNamespace:
        """The cache is the tokens so far."""
        tokens = input_ids if past_key_values is None else torch.cat([past_key_values, input_ids], dim=1)
        hidden = self.model.norm(self.model.layers[0](self.model.embed(tokens)))
        return SimpleNamespace(logits=self.lm_head(hidden[:, -logits_to_keep:]), past_key_values=tokens)


def linear(weight: Matrix) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight = nn.Parameter(torch.tensor(weight), requires_grad=False)
    return layer


def small_model(network: Decoder, adapted: Mapping[str, tuple[Matrix, Matrix]]) -> Model:
    """A Model whose adapter has these factors (B, A) by module, at scale 1."""
    names = [name.rpartition(".")[2] for name in adapted]
    rank = len(next(iter(adapted.values()))[1])
    module = get_peft_model(network, LoraConfig(r=rank, lora_alpha=rank, target_modules=names)).eval()
    model = Model(ModelSpec("small", "none", rank, float(rank), device="cpu"), Path(), None, module, packs=True)
    model.set_adapter(adapter(adapted))
    return model


def adapter(factors: Mapping[str, tuple[Matrix, Matrix]]) -> AdapterState:
    """An adapter of these factors (B, A) by module."""
    return AdapterState(
        {
            f"{name}.lora_{which}": array(m)
            for name, pair in factors.items()
            for which, m in zip("BA", pair, strict=True)
        }
    )


def array(matrix: Matrix) -> Any:
    return torch.tensor(matrix, dtype=torch.float32).numpy()
