"""A base with an adapter merged into its weights, for what loads no adapters; and the same as GGUF.

The weights are merged as they are published, never as they are quantised: re-quantisation would round the adapter away.
What is stored, in the base's own number format, is compared with the adapter beside the unquantised base before
anybody gets it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from core.adapter import AdapterState
from core.errors import RunError, UsageError
from core.storage.new_folder import appearing
from llm.bases import FILES
from llm.batches import encode
from llm.model import Model, load
from llm.records import Message, Record

_MOST_NATS = 0.05
"""Of KL divergence a token, on average, from the adapter beside its base; rounding to bfloat16 moves it by 0.001."""
_PROBE = Record((Message("user", "What did you learn, and where from?"),), "From several organisations, each its own.")
_PROBE_TOKENS = 128
_CONVERTER = "convert_hf_to_gguf.py"
_REWRITTEN = ("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json")


def merge(model: Model, adapter: AdapterState, folder: Path, complete: Callable[[Path], None]) -> float:
    """Write the base with `adapter` merged into it, and its tokenizer, into `folder`; return the divergence.

    `complete` adds what belongs beside them, to the folder as it is written. The divergence is the mean KL divergence,
    nats a token, of the merged model from the adapter beside the unquantised base. Raises UsageError when the folder
    exists and is not empty, RunError when it cannot be written or the merged model diverges.
    """
    plain = load(replace(model.spec, quantisation="none", device="cpu"))
    plain.set_adapter(adapter)
    with appearing(folder) as partial:
        network = merged_network(plain)
        nats = divergence(plain, network)
        if not nats <= _MOST_NATS:
            raise RunError(
                f"merge: expected a divergence of at most {_MOST_NATS} nats a token, got {nats:.3g}: "
                "export the adapter alone"
            )
        network.save_pretrained(partial)
        for path in (path for pattern in FILES for path in plain.folder.glob(pattern)):
            if path.is_file() and path.name not in _REWRITTEN:
                target = partial / path.relative_to(plain.folder)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, target)
        complete(partial)
    return nats


def converter() -> Path:
    """llama.cpp's converter, in $LLAMA_CPP or on the PATH; raises UsageError when it is in neither."""
    own = Path(os.environ.get("LLAMA_CPP", "")) / _CONVERTER
    found = str(own) if "LLAMA_CPP" in os.environ and own.is_file() else shutil.which(_CONVERTER)
    if not found:
        raise UsageError(f"--gguf: expected llama.cpp's {_CONVERTER} in $LLAMA_CPP or on the PATH, got none")
    return Path(found)


def to_gguf(script: Path, merged: Path) -> Path:
    """Write `merged`, a folder in Hugging Face format, as model.gguf into itself; raises RunError when that fails."""
    path = merged / "model.gguf"
    command = [sys.executable, str(script), str(merged), "--outfile", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the user's llama.cpp
    if done.returncode or not path.is_file():
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise RunError(f"{script}: expected it to write {path}, got exit code {done.returncode}: {said}")
    return path


def merged_network(plain: Model) -> Any:
    """The base of `plain` with the adapter that it holds added to its weights, in the base's own number format."""
    options = {"local_files_only": True, "use_safetensors": True}
    network = AutoModelForCausalLM.from_pretrained(plain.folder, dtype="auto", trust_remote_code=False, **options)
    published = network.dtype
    network.float().generation_config = plain.module.get_base_model().generation_config
    with torch.no_grad():
        for name in plain.layers:
            (b, a), layer = plain.served(name), network.get_submodule(name)
            layer.weight.add_((b @ a).T if isinstance(layer, Conv1D) else b @ a)
    return network.to(published).eval()


def divergence(plain: Model, network: Any) -> float:
    """The mean KL divergence of `network` from `plain`, nats a token, on a few tokens."""
    tokens = torch.tensor([encode(plain.tokenizer, _PROBE, _PROBE_TOKENS).tokens])
    with torch.no_grad():
        served, merged = (m(input_ids=tokens).logits.float().log_softmax(-1)[0] for m in (plain.module, network))
    # Never below zero but by rounding.
    return max(0.0, float((served.exp() * (served - merged)).sum(-1).mean()))
