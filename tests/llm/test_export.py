import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core import lora
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, rank_of
from core.canonical import Address
from core.errors import RunError, UsageError
from llm.export import export
from llm.model import Model
from tests.federation import delta
from tests.llm.conftest import Loader
from tests.llm.test_model import random_adapter

TOKENS = torch.arange(24).reshape(2, 12)


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
    export(model, {"": adapter}, tmp_path / "adapter", "card")
    base = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    bare = logits(base)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    model.set_adapter(adapter)
    torch.testing.assert_close(logits(loaded), logits(model.module), rtol=0.0, atol=0.0)
    assert not torch.allclose(logits(loaded), bare, atol=1e-3)
    assert loaded.peft_config["default"].r == rank_of(adapter) == (16 if name == "stack" else 4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's own
def test_lanes_are_adapters_of_their_own(load_tiny: Loader, tmp_path: Path) -> None:
    model = load_tiny()
    lanes = {f"lane-{number}": random_adapter(model, rank=4, seed=number) for number in range(2)}
    export(model, lanes, tmp_path / "adapters", "card")
    for name, adapter in lanes.items():
        base = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32, attn_implementation="sdpa")
        loaded = PeftModel.from_pretrained(base.eval(), tmp_path / "adapters" / name).eval()
        model.set_adapter(adapter)
        torch.testing.assert_close(logits(loaded), logits(model.module), rtol=0.0, atol=0.0)
        assert (tmp_path / "adapters" / name / "README.md").read_text(encoding="utf-8") == "card"


def test_the_base_goes_by_the_name_under_which_it_is_published(load_tiny: Loader, tmp_path: Path) -> None:
    model = load_tiny()
    named = replace(model, spec=replace(model.spec, base="smollm2"))
    export(named, {"": random_adapter(model, rank=4)}, tmp_path / "adapter", "card")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_folder_with_content_is_left_alone(load_tiny: Loader, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=f"expected a new or empty folder, got {tmp_path}"):
        export(load_tiny(), {"": aggregated(load_tiny(), "fedavg")}, tmp_path, "card")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_export_leaves_nothing(load_tiny: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llm.export.save_file", full)
    with pytest.raises(RunError, match="No space left"):
        export(load_tiny(), {"": aggregated(load_tiny(), "fedavg")}, tmp_path / "adapter", "card")
    assert list(tmp_path.iterdir()) == []
