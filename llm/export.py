"""Adapters in PEFT's own format, which `PeftModel.from_pretrained` and vLLM load.

The files are adapter_config.json and adapter_model.safetensors, and what their writer adds. PEFT's scale is
lora_alpha / r, or / √r with use_rslora, so lora_alpha follows the adapter's rank: one whose rank has grown keeps the
scale it was trained with.
"""

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
from peft import LoraConfig
from safetensors.numpy import save_file
from transformers.pytorch_utils import Conv1D

from core.adapter import AdapterState
from core.aggregation import rank_of
from core.storage.new_folder import appearing
from llm.bases import published
from llm.model import Model

_PREFIX = "base_model.model."


def export(
    model: Model, adapters: Mapping[str, AdapterState], folder: Path, complete: Callable[[str, Path], None]
) -> Path:
    """Write A and B of every module into `folder`, which appears whole or not at all.

    `adapters` go to the folders of their names in it; "" is the folder itself. `complete` adds what belongs beside an
    adapter: it is given the adapter's name and its folder as it is written.

    Raises UsageError when the folder exists and is not empty, RunError when it cannot be written.
    """
    with appearing(folder) as partial:
        for name, adapter in adapters.items():
            write_adapter(model, adapter, partial / name)
            complete(name, partial / name)
    return folder


def write_adapter(model: Model, adapter: AdapterState, folder: Path) -> None:
    """Write one adapter as its configuration and its tensors."""
    rank = rank_of(adapter)
    grown = rank / model.spec.rank
    alpha = model.spec.alpha * (math.sqrt(grown) if model.spec.rslora else grown)
    config = LoraConfig(
        base_model_name_or_path=published(model.spec.base),
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=rank,
        # PEFT declares an integer; a fraction is written only where a rank that has grown makes it one.
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,
        use_rslora=model.spec.rslora,
        target_modules=sorted(peft_targets(model)),
        fan_in_fan_out=any(isinstance(layer.get_base_layer(), Conv1D) for layer in model.layers.values()),
    )
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    tensors = {f"{_PREFIX}{name}.weight": np.array(array, np.float32) for name, array in adapter.arrays.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def peft_targets(model: Model) -> Collection[str]:
    """The adapted layers as PEFT finds them: the last parts of their names where no other layer has one of them."""
    lasts = {name.rpartition(".")[2] for name in model.modules}
    others = (name for name, _ in model.module.get_base_model().named_modules() if name not in model.modules)
    return model.modules if any(name.rpartition(".")[2] in lasts for name in others) else lasts
