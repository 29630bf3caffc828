"""On which GPUs a base lies: on one where it fits, else spread over all that are visible, block by block.

Sizes and the division are those of transformers and accelerate; between the parts, accelerate's hooks move what passes.
Nothing is ever put on the CPU or the disk: a base that is larger than all GPUs together is refused before it is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.integrations.accelerate import compute_module_sizes, get_balanced_memory, infer_auto_device_map
from transformers.quantizers.auto import get_hf_quantizer

from core.errors import ModelError

_FILLED: Final = 0.85
"""The part of a GPU's free memory that a base may take; the rest is for adapters, activations and the optimiser."""


def free_memory() -> dict[int, int]:
    """The free bytes of each visible GPU by its number."""
    return {gpu: torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count())}


def device_map(
    folder: Path, settings: BitsAndBytesConfig | None, dtype: torch.dtype, memory: Mapping[int, int]
) -> dict[str, int]:
    """The GPU of each part of the base in a folder, by the part's name; "" is all of it.

    `memory` has each GPU's free bytes. Raises ModelError for a base that does not fit.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with init_empty_weights(include_buffers=True):
        network = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    quantiser, _, _ = get_hf_quantizer(config, settings, None, weights_only=True, user_agent={})
    if quantiser is not None:
        quantiser.preprocess_model(model=network, dtype=dtype, device_map=None)
    room = {gpu: int(_FILLED * free) for gpu, free in memory.items()}
    size = int(compute_module_sizes(network, quantiser)[0][""])
    for gpu, free in room.items():
        if size <= free:
            return {"": gpu}
    whole = network._no_split_modules
    # Evenly, so that activations have room everywhere; where that leaves a block over, one GPU after another.
    for limits in (get_balanced_memory(network, dict(room), whole, quantiser), room):
        found = infer_auto_device_map(network, dict(limits), whole, hf_quantizer=quantiser)
        if set(found.values()) <= set(room):
            return {str(part): int(gpu) for part, gpu in found.items()}
    raise ModelError(
        f"base model {folder}: expected GPUs with {_gib(size)} free for its weights, in whole blocks, got "
        f"{' + '.join(map(_gib, room.values()))}: use more GPUs, or quantise it further"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
