import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from core import lora
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, rank_of
from core.canonical import Address
from core.errors import RunError, UsageError
from llm.export import export
from llm.model import Model, ModelSpec, load
from tests.federation import delta
from tests.llm.conftest import Loader
from tests.llm.test_model import random_adapter

TOKENS = torch.arange(24).reshape(2, 12)


def card(name: str, folder: Path) -> None:
    """What a test adds beside an adapter."""
    (folder / "README.md").write_text(f"card of {name}", encoding="utf-8")


def aggregated(model: Model, name: str) -> AdapterState:
    """The adapter after two rounds of two organisations under a rule."""
    rule = RULES[name]
    fresh = lora.fresh(lora.Layout.of(model.modules, model.spec.rank), b"seed")
    state = rule.initial(fresh)
    for number in (1, 2):
        updates = [
            WeightedUpdate(Address(hex(k)), weight, delta(rule.shapes(state, fresh), name, number, k))
            for k, weight in ((1, 0.25), (2, 0.75))
        ]
        state = rule.aggregate(state, updates).state
    return AdapterState(
        {name: (0.05 * array).astype(np.float32) for name, array in rule.adapter(state, fresh).arrays.items()}
    )


def logits(module: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(module(TOKENS).logits)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("name", sorted(RULES))
def test_peft_loads_what_is_served(name: str, load_tiny: Loader, tmp_path: Path) -> None:
    model = load_tiny()
    adapter = aggregated(model, name)
    export(model, {"": adapter}, tmp_path / "adapter", card)
    base = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    bare = logits(base)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    model.set_adapter(adapter)
    torch.testing.assert_close(logits(loaded), logits(model.module), rtol=0.0, atol=0.0)
    assert not torch.allclose(logits(loaded), bare, atol=1e-3)
    assert loaded.peft_config["default"].r == rank_of(adapter) == (16 if name == "stack" else 4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("rank", [4, 9])
def test_a_rank_stabilised_adapter_keeps_its_scale(load_tiny: Loader, tmp_path: Path, rank: int) -> None:
    model = load(replace(load_tiny().spec, rslora=True))
    (scale,) = {layer.scaling["default"] for layer in model.layers.values()}
    assert scale == pytest.approx(8.0 / 4**0.5)
    adapter = random_adapter(model, rank=rank)
    export(model, {"": adapter}, tmp_path / "adapter", card)
    base = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    model.set_adapter(adapter)
    torch.testing.assert_close(logits(loaded), logits(model.module), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's own
def test_lanes_are_adapters_of_their_own(load_tiny: Loader, tmp_path: Path) -> None:
    model = load_tiny()
    lanes = {f"lane-{number}": random_adapter(model, rank=4, seed=number) for number in range(2)}
    export(model, lanes, tmp_path / "adapters", card)
    for name, adapter in lanes.items():
        base = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32, attn_implementation="sdpa")
        loaded = PeftModel.from_pretrained(base.eval(), tmp_path / "adapters" / name).eval()
        model.set_adapter(adapter)
        torch.testing.assert_close(logits(loaded), logits(model.module), rtol=0.0, atol=0.0)
        assert (tmp_path / "adapters" / name / "README.md").read_text(encoding="utf-8") == f"card of {name}"


def test_the_base_goes_by_the_name_under_which_it_is_published(load_tiny: Loader, tmp_path: Path) -> None:
    model = load_tiny()
    named = replace(model, spec=replace(model.spec, base="smollm2"))
    export(named, {"": random_adapter(model, rank=4)}, tmp_path / "adapter", card)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_folder_with_content_is_left_alone(load_tiny: Loader, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=f"expected a new or empty folder, got {tmp_path}"):
        export(load_tiny(), {"": aggregated(load_tiny(), "fedavg")}, tmp_path, card)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_export_leaves_nothing(load_tiny: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llm.export.save_file", full)
    with pytest.raises(RunError, match="No space left"):
        export(load_tiny(), {"": aggregated(load_tiny(), "fedavg")}, tmp_path / "adapter", card)
    assert list(tmp_path.iterdir()) == []


VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM documents for --max-lora-rank."""
VLLM_MODULES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
"""Those of a Llama that vLLM knows, before it fuses them."""


@pytest.mark.parametrize("blocks", ["", "1-1"])
def test_the_export_is_as_vllm_documents_it(base_folder: Callable[[str], Path], tmp_path: Path, blocks: str) -> None:
    """Of its PEFTHelper, and of the names and shapes of tensors that it takes from a checkpoint."""
    model = load(ModelSpec(str(base_folder("llama")), "none", 4, 8.0, blocks=blocks, device="cpu"))
    export(model, {"": random_adapter(model, rank=4)}, tmp_path / "adapter", card)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["peft_type"] == "LORA"
    assert type(config["r"]) is type(config["lora_alpha"]) is int
    assert any(config["r"] <= rank for rank in VLLM_RANKS)
    assert config["bias"] == "none"
    assert not config["modules_to_save"]
    assert not config["use_dora"]
    assert {name.rpartition(".")[2] for name in config["target_modules"]} == VLLM_MODULES
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        matched = re.fullmatch(r"base_model\.model\.model\.layers\.(\d+)\.\w+\.(\w+)\.lora_([AB])\.weight", name)
        assert matched, name
        assert matched[2] in VLLM_MODULES
        assert tensor.shape[0 if matched[3] == "A" else 1] == config["r"]
    assert len(tensors) == 2 * len(model.modules)
