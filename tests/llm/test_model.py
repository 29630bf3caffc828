import ast
import contextlib
import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import llm.model
from core.adapter import AdapterState
from core.canonical import Digest
from core.errors import ModelError
from llm.bases import shards
from llm.batches import collate, encode
from llm.evaluate import record_losses
from llm.loss import answer_losses
from llm.model import Model, ModelSpec, load, unload
from tests.llm.conftest import ARCHITECTURES, CHAT, CONFIGS, Loader, byte_tokenizer, question
from tests.precision import assert_equal_up_to_rounding

RECORDS = (question("What?", "This."), question("And who?", "The other one."))


def random_adapter(model: Model, rank: int, seed: int = 0, scale: float = 0.1) -> AdapterState:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, int]] = {}
    for name, (inputs, outputs) in model.modules.items():
        shapes |= {f"{name}.lora_A": (rank, inputs), f"{name}.lora_B": (outputs, rank)}
    return AdapterState({n: scale * rng.standard_normal(s, dtype=np.float32) for n, s in shapes.items()})


def logits(model: Model, text: str = "some text") -> torch.Tensor:
    with torch.no_grad(), model.autocast():
        return model.module(**model.tokenizer(text, return_tensors="pt")).logits


@pytest.mark.parametrize("quantisation", ["none", "nf4", "int8"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_adapter_that_is_set_is_the_one_that_is_got(load_tiny: Loader, architecture: str, quantisation: str) -> None:
    model = load_tiny(architecture, quantisation)
    state = random_adapter(model, rank=4)
    model.set_adapter(state)
    assert model.get_adapter() == state


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_linear_layers_but_the_head_are_adapted(load_tiny: Loader, architecture: str) -> None:
    modules = load_tiny(architecture).modules
    assert modules["model.layers.0.self_attn.q_proj"] == (48, 48)
    assert modules["model.layers.1.mlp.down_proj"] == (80, 48)
    assert len(modules) == 2 * 7
    assert not any("lm_head" in name for name in modules)


def test_set_and_get_survive_a_change_of_rank(load_tiny: Loader) -> None:
    model = load_tiny()
    for rank in (4, 9, 2, 4):
        state = random_adapter(model, rank)
        model.set_adapter(state)
        assert model.get_adapter() == state


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_the_scale_stays_that_of_the_spec_when_the_rank_changes(load_tiny: Loader, quantisation: str) -> None:
    model = load_tiny(quantisation=quantisation)
    narrow = random_adapter(model, rank=4)
    padded = AdapterState({name: _pad(name, array) for name, array in narrow.arrays.items()})
    model.set_adapter(narrow)
    before = logits(model)
    model.set_adapter(padded)
    torch.testing.assert_close(logits(model), before, rtol=1e-2 if quantisation == "nf4" else 1e-5, atol=1e-2)


def _pad(name: str, array: np.ndarray) -> np.ndarray:
    width = ((0, 3), (0, 0)) if name.endswith("lora_A") else ((0, 0), (0, 3))
    return np.pad(array, width)


def test_the_adapter_changes_the_logits_by_scale_times_b_a_x(load_tiny: Loader) -> None:
    model = load_tiny()
    state = random_adapter(model, rank=4)
    model.set_adapter(state)
    name = "model.layers.0.mlp.up_proj"
    x = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    layer = model.layers[name]
    with torch.no_grad():
        delta = layer(x) - layer.base_layer(x)
    a, b = (torch.tensor(np.array(state[f"{name}.lora_{factor}"])) for factor in "AB")
    assert_equal_up_to_rounding(delta, 2.0 * x @ a.T @ b.T, 48 + 4)  # features, and the rank


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_the_adapter_the_model_is_its_base(load_tiny: Loader, architecture: str) -> None:
    model = load_tiny(architecture)
    model.set_adapter(random_adapter(model, rank=4, scale=0.0))
    base = logits(model)
    model.set_adapter(random_adapter(model, rank=4))
    assert not torch.equal(logits(model), base)
    with model.without_adapter():
        assert torch.equal(logits(model), base)
    assert not torch.equal(logits(model), base)


def _drop(arrays: dict[str, np.ndarray], name: str) -> None:
    del arrays[name]


def _rename(arrays: dict[str, np.ndarray], name: str) -> None:
    arrays["elsewhere"] = arrays[name]


def _broadcastable(arrays: dict[str, np.ndarray], name: str) -> None:
    arrays[name] = np.zeros(1, np.float32)


def _other_rank(arrays: dict[str, np.ndarray], name: str) -> None:
    arrays[name] = np.zeros((5, arrays[name].shape[1]), np.float32)


@pytest.mark.parametrize("spoil", [_drop, _rename, _broadcastable, _other_rank])
def test_an_adapter_that_does_not_fit_is_refused_and_changes_nothing(
    load_tiny: Loader, spoil: Callable[[dict[str, np.ndarray], str], None]
) -> None:
    model = load_tiny()
    before = random_adapter(model, rank=4, seed=1)
    model.set_adapter(before)
    arrays = dict(random_adapter(model, rank=4, seed=2).arrays)
    spoil(arrays, "model.layers.1.mlp.up_proj.lora_A")
    with pytest.raises(ModelError):
        model.set_adapter(AdapterState(arrays))
    assert model.get_adapter() == before


def test_inside_the_bare_base_another_visit_to_it_changes_nothing(load_tiny: Loader) -> None:
    model = load_tiny()
    model.set_adapter(random_adapter(model, rank=4, scale=1.0))
    with model.without_adapter():
        before = logits(model)
        with model.without_adapter():
            assert torch.equal(logits(model), before)
        assert torch.equal(logits(model), before)
    assert not torch.equal(logits(model), before)


def test_equal_specs_share_one_model(load_tiny: Loader) -> None:
    assert load_tiny() is load_tiny()


@pytest.mark.parametrize(
    ("blocks", "numbers"), [("", {0, 1}), ("all", {0, 1}), ("0-1", {0, 1}), ("last-third", {1}), ("0-0", {0})]
)
def test_only_the_chosen_blocks_carry_an_adapter(
    base_folder: Callable[[str], Path], blocks: str, numbers: set[int]
) -> None:
    model = load(ModelSpec(str(base_folder("llama")), "none", blocks=blocks))
    assert {int(name.split(".")[2]) for name in model.modules} == numbers
    assert model.spec.blocks == ("" if len(numbers) == 2 else f"{min(numbers)}-{max(numbers)}")
    assert not any("lm_head" in name for name in model.modules)


@pytest.mark.parametrize(("part", "blocks"), [("last-half", "2-4"), ("last-third", "3-4")])
def test_a_named_part_is_rounded_up_to_blocks(
    base_folder: Callable[[str], Path], tmp_path: Path, part: str, blocks: str
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base_folder("llama"), folder)
    config = AutoConfig.from_pretrained(folder, num_hidden_layers=5)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    assert load(ModelSpec(str(folder), "none", blocks=part)).spec.blocks == blocks


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_only_the_chosen_layers_carry_an_adapter(base_folder: Callable[[str], Path], architecture: str) -> None:
    every = {name.rpartition(".")[2] for name in load(ModelSpec(str(base_folder(architecture)), "none")).modules}
    chosen = tuple(sorted(every)[:2])
    model = load(ModelSpec(str(base_folder(architecture)), "none", modules=chosen))
    assert {name.rpartition(".")[2] for name in model.modules} == set(chosen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": "1-2"}, "expected all, last-half, last-third, or FIRST-LAST within 0-1, got '1-2'"),
        ({"blocks": "1-0"}, "got '1-0'"),
        ({"blocks": "upper"}, "got 'upper'"),
        ({"modules": ("q_proj", "nowhere")}, r"got \['nowhere'\]"),
    ],
)
def test_blocks_and_layers_that_the_base_lacks_are_refused(
    base_folder: Callable[[str], Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load(ModelSpec(str(base_folder("llama")), "none", **changes))


def test_an_equal_spec_in_numbers_shares_the_model_of_a_part(base_folder: Callable[[str], Path]) -> None:
    spec = ModelSpec(str(base_folder("llama")), "none", blocks="last-third")
    assert load(spec) is load(replace(spec, blocks="1-1"))


def test_a_model_that_was_unloaded_is_read_again(load_tiny: Loader) -> None:
    before = load_tiny()
    unload()
    assert load_tiny() is not before


def test_the_memory_of_one_base_is_given_back_before_another_is_read(
    base_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weakref.ref(load(ModelSpec(str(base_folder("llama")), "none")).module)
    assert before() is not None
    read, held = llm.model._base, list[object]()

    def reading(folder: Path, spec: ModelSpec, shared: Digest | None) -> object:
        held.append(before())
        return read(folder, spec, shared)

    monkeypatch.setattr(llm.model, "_base", reading)
    load(ModelSpec(str(base_folder("qwen2")), "none"))
    assert held == [None]


def test_loading_leaves_the_global_generator_alone(base_folder: Callable[[str], Path]) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load(ModelSpec(str(base_folder("llama")), "none", rank=3))
    assert torch.equal(torch.rand(3), wanted)


def test_the_digest_binds_weights_config_and_tokenizer(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    digests = {_digest(base_folder("llama"))}
    for file, change in {
        "model.safetensors": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        "config.json": lambda data: data.replace(b"1e-06", b"1e-05"),
        "tokenizer_config.json": lambda data: data + b"\n",
    }.items():
        folder = tmp_path / file
        shutil.copytree(base_folder("llama"), folder)
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(change(data))
        assert (folder / file).read_bytes() != data
        digests.add(_digest(folder))
    assert len(digests) == 4


def _digest(folder: Path) -> str:
    return load(ModelSpec(str(folder), "none")).digest


def test_a_copy_in_another_folder_has_the_same_digest(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(base_folder("llama"), tmp_path / "copy")
    assert _digest(tmp_path / "copy") == _digest(base_folder("llama"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nf4_evaluates_alike_before_and_after_training_mode(load_tiny: Loader, architecture: str) -> None:
    """A CPU that repacks 4-bit weights on the first evaluation would give other logits afterwards."""
    model = load_tiny(architecture, "nf4")
    batch = collate([encode(model.tokenizer, record, 64) for record in RECORDS], [(0,), (1,)])
    model.module.train()
    training = answer_losses(model, batch).detach()
    model.module.eval()
    with torch.no_grad():
        assert torch.equal(answer_losses(model, batch), training)
    model.module.train()
    assert torch.equal(answer_losses(model, batch).detach(), training)
    model.module.eval()


@pytest.mark.parametrize(("quantisation", "tolerance"), [("int8", 0.05), ("nf4", 0.5)])
def test_a_quantised_base_predicts_nearly_as_the_plain_one(
    load_tiny: Loader, quantisation: str, tolerance: float
) -> None:
    plain = record_losses(load_tiny(), None, RECORDS)
    quantised = record_losses(load_tiny(quantisation=quantisation), None, RECORDS)
    for a, b in zip(plain, quantised, strict=True):
        assert a.nats / a.tokens == pytest.approx(b.nats / b.tokens, abs=tolerance)
        assert a.nats != b.nats


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("/no/such/folder", "'/no/such/folder': expected smollm2"),
        ("./nowhere", "'./nowhere': expected smollm2"),
        ("nowhere", "'nowhere': expected smollm2"),
    ],
)
def test_a_base_that_is_not_there_is_one_line(base: str, message: str) -> None:
    _refused(base, message)


def test_a_name_that_the_hub_does_not_give_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _refused("nobody/no-such-model", "nobody/no-such-model")


def test_a_folder_without_a_tokenizer_is_one_line(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        shutil.copy(base_folder("llama") / file, tmp_path)
    _refused(str(tmp_path), "tokenizer")


def test_a_folder_without_safetensors_is_one_line(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    shutil.copy(base_folder("llama") / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    _refused(str(tmp_path), "safetensors")


def test_torn_weights_are_one_line(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(base_folder("llama"), tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    _refused(str(tmp_path / "torn"), "cannot be loaded")


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    _refused(str(tmp_path), "cannot be loaded")


def _refused(base: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(ModelSpec(base, "none"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parts", [{"AutoConfig", "AutoModelForCausalLM"}, {"AutoTokenizer"}])
def test_code_that_comes_with_a_base_is_never_run(
    base_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: set[str]
) -> None:
    folder = shutil.copytree(base_folder("llama"), tmp_path / "base")
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    ran = tmp_path / "ran"
    (folder / "theirs.py").write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nclass C: ...\n")
    name = "tokenizer_config.json" if "AutoTokenizer" in parts else "config.json"
    settings = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    if "AutoTokenizer" in parts:
        settings |= {"tokenizer_class": "C", "auto_map": {"AutoTokenizer": ["theirs.C", None]}}
    else:
        settings |= {"model_type": "theirs", "auto_map": dict.fromkeys(parts, "theirs.C")}
    (folder / name).write_text(json.dumps(settings))
    spec = ModelSpec(str(folder), "none", 2, 2.0, "cpu")
    with contextlib.suppress(ModelError):
        load(spec)
    if name == "config.json":
        wanted = "cannot be (read|loaded as none): expected a base without code of its own, which is never run, got one"
        for blocks in ("all", "last-half"):
            with pytest.raises(ModelError, match=wanted):
                load(replace(spec, blocks=blocks))
    assert not ran.exists()
    assert not asked


def test_no_loader_leaves_it_to_the_terminal_whether_code_is_run() -> None:
    # Left unset, transformers asks; a pipe that answers yes runs the model's code.
    root = Path(llm.model.__file__).parent.parent
    for package in ("llm", "client_app", "server_app", "provenance", "unlearning", "console", "agents"):
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("from_pretrained", "from_config"):
                    given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                    assert given.get("trust_remote_code") is False, f"{path}:{node.lineno}"


def test_the_date_that_a_template_prints_is_the_spec_s_and_without_one_today_s(
    base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(base_folder("llama"), tmp_path / "base")
    byte_tokenizer("{{ strftime_now('%Y-%m-%d') }}\n" + CHAT).save_pretrained(folder)
    spec = ModelSpec(str(folder), "none", date="2031-03-09")
    model = load(spec)
    assert model.spec.date == "2031-03-09"
    assert "2031-03-09" in model.tokenizer.decode(encode(model.tokenizer, RECORDS[0], 64).tokens)
    before = datetime.now(UTC).date().isoformat()
    assert before <= load(replace(spec, date="")).spec.date <= datetime.now(UTC).date().isoformat()


def test_a_template_that_prints_no_date_has_none(load_tiny: Loader, base_folder: Callable[[str], Path]) -> None:
    spec = load_tiny().spec
    assert load(replace(spec, date="2031-03-09")) is load_tiny()
    assert load_tiny().spec.date == ""


def test_an_adapter_beside_the_weights_is_refused(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder("llama"), tmp_path / "base")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    _refused(str(folder), "expected weights alone, got adapter_config.json")


def test_sharded_weights_are_read_and_a_shard_that_is_missing_is_one_line(
    base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    plain = load(ModelSpec(str(base_folder("llama")), "none"))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(CONFIGS["llama"]()).save_pretrained(tmp_path, max_shard_size="60KB")
    byte_tokenizer(CHAT).save_pretrained(tmp_path)
    assert len(shards(tmp_path)) > 1
    sharded = load(ModelSpec(str(tmp_path), "none"))
    assert torch.equal(logits(sharded), logits(plain))
    sorted(shards(tmp_path))[0].unlink()
    unload()
    _refused(str(tmp_path), "got no such file|cannot be loaded")


def test_weights_that_are_missing_are_never_drawn_at_random(base_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder("qwen2"), tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _refused(str(folder), r"expected weights of lm_head.weight, got none \(1 are missing\)")
