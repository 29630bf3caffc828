"""A merged base: the same model as the adapter beside it, checked before it is written; and its GGUF."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.aggregation import RULES
from core.errors import RunError, UsageError
from llm import merge as merging
from llm.batches import encode_prompt
from llm.merge import converter, merge, to_gguf
from llm.model import ModelSpec, load
from tests.llm.conftest import Loader
from tests.llm.test_export import aggregated
from tests.llm.test_model import random_adapter

TOKENS = torch.arange(24).reshape(2, 12)


def card(folder: Path) -> None:
    """What a test adds beside a merged model."""
    (folder / "README.md").write_text("card", encoding="utf-8")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_merged_base_gives_what_the_adapter_beside_it_gives(
    load_tiny: Loader, tmp_path: Path, architecture: str
) -> None:
    model = load_tiny(architecture)
    adapter = random_adapter(model, rank=4)
    assert 0 <= merge(model, adapter, tmp_path / "merged", card) < 1e-6
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    model = load_tiny(architecture)
    with torch.no_grad():
        model.set_adapter(adapter)
        torch.testing.assert_close(merged(TOKENS).logits, model.module(TOKENS).logits, rtol=1e-4, atol=1e-4)
        with model.without_adapter():
            assert not torch.allclose(merged(TOKENS).logits, model.module(TOKENS).logits, atol=1e-2)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert encode_prompt(tokenizer, "Who?") == encode_prompt(model.tokenizer, "Who?")
    assert (tmp_path / "merged" / "README.md").read_text(encoding="utf-8") == "card"


@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_every_rule_serves_can_be_merged(rule: str, load_tiny: Loader, tmp_path: Path) -> None:
    model = load_tiny()
    adapter = aggregated(model, rule)
    assert merge(model, adapter, tmp_path / "merged", card) < 1e-6
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    with torch.no_grad():
        model.set_adapter(adapter)
        torch.testing.assert_close(merged(TOKENS).logits, model.module(TOKENS).logits, rtol=1e-4, atol=1e-4)


def test_a_quantised_base_is_merged_as_it_was_published(
    base_folder: Callable[[str], Path], load_tiny: Loader, tmp_path: Path
) -> None:
    quantised = load(ModelSpec(str(base_folder("llama")), "nf4", 4, 8.0, device="cpu"))
    adapter = random_adapter(quantised, rank=4)
    merge(quantised, adapter, tmp_path / "from-nf4", card)
    merge(load_tiny(), adapter, tmp_path / "from-plain", card)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("from-nf4", "from-plain"))
    assert one == other


def test_a_merged_base_that_diverges_is_not_written(
    load_tiny: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_tiny()
    merged = merging.merged_network

    def spoilt(plain: object) -> object:
        network = merged(plain)
        with torch.no_grad():
            network.model.layers[0].mlp.up_proj.weight.mul_(-1)
        return network

    monkeypatch.setattr(merging, "merged_network", spoilt)
    with pytest.raises(
        RunError, match=r"expected a divergence of at most 0.05 nats a token, got .*: export the adapter"
    ):
        merge(model, random_adapter(model, rank=4), tmp_path / "merged", card)
    assert list(tmp_path.iterdir()) == []


def test_without_llama_cpp_a_gguf_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    with pytest.raises(UsageError, match=r"expected llama.cpp's convert_hf_to_gguf.py in \$LLAMA_CPP or on the PATH"):
        converter()


@pytest.mark.parametrize(
    ("script", "fails"),
    [
        ("import sys, pathlib; pathlib.Path(sys.argv[3]).write_text(sys.argv[1])", ""),
        ("import sys; sys.exit('Model MyLlama is not supported')", "exit code 1: Model MyLlama is not supported"),
    ],
)
def test_llama_cpp_s_converter_is_asked_where_it_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, fails: str
) -> None:
    (tmp_path / "convert_hf_to_gguf.py").write_text(script, encoding="utf-8")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    if fails:
        with pytest.raises(RunError, match=fails):
            to_gguf(converter(), tmp_path)
    else:
        assert to_gguf(converter(), tmp_path).read_text(encoding="utf-8") == str(tmp_path)
