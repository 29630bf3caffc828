"""Networks with random weights in the shapes of published ones, built where they compute: nothing is fetched."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

import assets
from llm.model import Model, ModelSpec, Quantisation, adapted, tokenizer_in


@dataclass(frozen=True)
class Shape:
    """The sizes of a network, and of the rows that it is trained on."""

    config: PretrainedConfig
    blocks: str
    """The blocks that carry an adapter, FIRST-LAST: the last half."""
    row_tokens: int = 1024
    most_rows: int = 16
    rank: int = 32


SHAPES = {
    "smallest": Shape(
        LlamaConfig(
            vocab_size=8192, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
        ),
        "2-3", row_tokens=64, most_rows=2, rank=4,
    ),
    "SmolLM2-1.7B": Shape(
        LlamaConfig(
            vocab_size=49_152, hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32,
            num_key_value_heads=32, max_position_embeddings=8192, tie_word_embeddings=True,
        ),
        "12-23",
    ),
    "Llama-3.1-8B": Shape(
        LlamaConfig(
            vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192, tie_word_embeddings=False,
        ),
        "16-31",
    ),
    "Qwen2.5-7B": Shape(
        Qwen2Config(
            vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28,
            num_attention_heads=28, num_key_value_heads=4, max_position_embeddings=8192, tie_word_embeddings=False,
        ),
        "14-27",
    ),
}  # fmt: skip


def random_model(shape: Shape, quantisation: Quantisation, device: torch.device) -> Model:
    """A network of random weights with a fresh adapter, and the embedded base's tokenizer, whose tokens it knows.

    Raises ImportError for a quantised one where bitsandbytes is missing.
    """
    torch.manual_seed(0)
    with device:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        base = AutoModelForCausalLM.from_config(shape.config, dtype=dtype, attn_implementation="sdpa").eval()
    base.requires_grad_(requires_grad=False)
    if quantisation == "nf4":
        _quantise(base, device)
    spec = ModelSpec("random", quantisation, shape.rank, 2.0 * shape.rank, blocks=shape.blocks, device=device.type)
    folder = assets.base_model()
    return adapted(spec, folder, tokenizer_in(folder), base)


def _quantise(base: Any, device: torch.device) -> None:
    """Put every linear layer but the output's in NF4, as loading such a base does."""
    layers = import_module("bitsandbytes.nn")
    for name, layer in list(base.named_modules()):
        if not isinstance(layer, torch.nn.Linear) or layer is base.get_output_embeddings():
            continue
        small = layers.Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None, layer.weight.dtype,
            compress_statistics=True, quant_type="nf4", device="meta",
        )  # fmt: skip
        weight = layer.weight.data
        small.weight = layers.Params4bit(weight, quant_type="nf4", compress_statistics=True, module=small).to(device)
        small.bias = layer.bias
        if hasattr(small, "support_avx512bf16_for_cpu"):
            small.support_avx512bf16_for_cpu = False
        base.set_submodule(name, small)
    base.is_loaded_in_4bit = True  # PEFT asks for it
