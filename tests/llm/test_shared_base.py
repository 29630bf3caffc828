import os
import threading
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.canonical import Digest
from llm import shared_base
from llm.bases import SHARE, digest_of
from llm.model import Model, ModelSpec, Quantisation, load, unload
from llm.shared_base import share

TOKENS = torch.arange(3, 23).view(2, 10)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shared copies, of which there are none."""
    monkeypatch.setenv("FOEDUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(SHARE, "1")
    unload()
    return tmp_path / "cache" / "shared"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 3}')
    return folder


class Loads:
    """A `load` whose networks have one odd and one even array; `folders` are those it was asked for."""

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self.weights = {"odd": torch.arange(5.0), "even": torch.arange(64.0), "flags": torch.ones(3, dtype=torch.bool)}

    def __call__(self, folder: Path) -> Any:
        self.folders.append(folder)
        parameters = [torch.nn.Parameter(self.weights["odd"])]
        return SimpleNamespace(
            config=SimpleNamespace(),
            all_tied_weights_keys={},
            state_dict=lambda: self.weights,
            parameters=lambda: parameters,
        )

    def share(self, base: Path, **settings: str) -> None:
        share(base, digest_of(base), settings, self)


@pytest.mark.parametrize(
    ("architecture", "quantisation"),
    [("llama", "nf4"), ("llama", "int8"), ("llama", "none"), ("gpt2", "nf4"), ("mixtral", "nf4"), ("qwen3", "int8")],
)
def test_a_shared_base_has_the_bits_of_one_that_is_loaded_alone(
    root: Path,
    base_folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    quantisation: Quantisation,
) -> None:
    spec = ModelSpec(str(base_folder(architecture)), quantisation, 4, 8.0, device="cpu")
    monkeypatch.delenv(SHARE)
    alone = _state(load(spec))
    unload()
    assert not root.exists()
    monkeypatch.setenv(SHARE, "1")
    for _process in range(2):
        shared = load(spec)
        state = _state(shared)
        assert state.keys() == alone.keys()
        assert all(torch.equal(state[name], alone[name]) and state[name].dtype == alone[name].dtype for name in alone)
        assert shared.known == shared.digest == digest_of(base_folder(architecture))
        network = shared.module.get_base_model()
        if architecture == "llama":
            assert network.get_output_embeddings().weight is network.get_input_embeddings().weight
        assert _is_mapped(network.get_input_embeddings().weight)
        assert all(_is_mapped(layer.get_base_layer().weight) for layer in shared.layers.values())
        assert all(p.data_ptr() % 64 == 0 for p in network.parameters() if type(p) is torch.nn.Parameter)
        unload()


def _state(model: Model) -> dict[str, torch.Tensor]:
    """All tensors of a model, buffers that are not saved too, and its logits."""
    with torch.no_grad(), model.autocast():
        logits = model.module(input_ids=TOKENS, use_cache=False).logits
    tensors = dict(model.module.state_dict()) | dict(model.module.named_buffers())
    return {name: tensor.clone() for name, tensor in tensors.items()} | {"logits": logits}


def _is_mapped(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies in a file of a shared copy, of which nothing was written in this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(address, 16) for address in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return "/shared/" in line and line.endswith("model.safetensors")
    return False


def test_what_is_asked_for_at_once_is_made_once(root: Path, base: Path) -> None:
    loads = Loads()
    threads = [threading.Thread(target=loads.share, args=(base,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (copy,) = root.glob("*-*")
    assert sorted(loads.folders) == sorted([base, *[copy] * 4])


def test_arrays_begin_where_torch_would_place_them(root: Path, base: Path) -> None:
    loads = Loads()
    loads.share(base)
    (file,) = root.glob("*/model.safetensors")
    size = int.from_bytes(file.read_bytes()[:8], "little")
    assert (8 + size) % 64 == 0
    stored = load_file(file)
    assert stored.keys() == loads.weights.keys()
    assert all(torch.equal(stored[name], loads.weights[name]) for name in stored)


@pytest.mark.parametrize("harm", ["cut short", "changed", "configured otherwise", "with an adapter", "a link"])
def test_a_copy_that_is_not_what_was_written_is_made_anew(
    root: Path, base: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    loads = Loads()
    loads.share(base)
    (copy,) = root.glob("*-*")
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    if harm == "cut short":
        weights.write_bytes(whole[:-4])
    elif harm == "changed":
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif harm == "with an adapter":
        (copy / "adapter_config.json").write_text("{}")
    elif harm == "a link":
        copy.rename(root / "elsewhere")
        copy.symlink_to(root / "elsewhere")
    else:
        (copy / "config.json").write_text("{}")
    loads.share(base)
    assert "made anew" in caplog.text
    assert loads.folders == [base, copy, base, copy]
    assert weights.read_bytes() == whole
    assert not copy.is_symlink()
    assert {path.name for path in copy.iterdir()} <= {"config.json", "generation_config.json", "model.safetensors"}


def test_a_process_that_was_killed_while_it_wrote_is_in_nobodys_way(root: Path, base: Path) -> None:
    loads = Loads()

    def killed(folder: Path) -> Any:
        (partial,) = root.glob("*.partial")
        (partial / "model.safetensors").write_bytes(b"half")
        # What stays of it: the folder as it is, and no lock.
        partial.rename(partial.with_name(f"{'0' * 32}.partial"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share(base, digest_of(base), {}, killed)
    loads.share(base)
    assert [path.is_dir() and digest_of(path)[2:] in path.name for path in root.glob("*") if path.name != ".lock"] == [
        True
    ]


def test_two_copies_are_kept(root: Path, base: Path) -> None:
    loads = Loads()
    for kind in ("first", "second", "first", "third"):
        loads.share(base, kind=kind)
        newest = loads.folders[-1]
        os.utime(newest, ns=(len(loads.folders) * 10**9,) * 2)
    assert loads.folders.count(base) == 3
    assert newest in root.glob("*-*")
    assert len(list(root.glob("*-*"))) == 2
    loads.share(base, kind="first")
    assert loads.folders.count(base) == 3


def test_another_base_is_another_copy(root: Path, base: Path) -> None:
    loads = Loads()
    loads.share(base)
    (base / "config.json").write_text('{"hidden_size": 4}')
    loads.share(base)
    assert loads.folders.count(base) == 2
    assert len(list(root.glob("*-*"))) == 2


def test_a_full_disk_leaves_each_process_its_own(
    root: Path, base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    monkeypatch.setattr(shared_base, "_write_weights", full)
    loads = Loads()
    loads.share(base)
    assert loads.folders == [base, base]
    assert "No space left" in caplog.text
    assert [path.name for path in root.iterdir()] == [".lock"]


def test_a_base_that_changed_while_it_was_read_is_not_kept(
    root: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loads = Loads()
    share(base, Digest("0x" + "11" * 32), {}, loads)
    assert "changed while" in caplog.text
    assert [path.name for path in root.iterdir()] == [".lock"]


def test_a_folder_that_others_can_enter_is_not_used(root: Path, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    root.mkdir(parents=True)
    root.chmod(0o755)
    loads = Loads()
    loads.share(base)
    assert loads.folders == [base]
    assert "0700" in caplog.text
    assert not list(root.iterdir())


def test_a_base_that_comes_quantised_is_loaded_as_it_is(root: Path, base: Path) -> None:
    (base / "config.json").write_text('{"quantization_config": {}}')
    loads = Loads()
    loads.share(base)
    assert loads.folders == [base]
    assert not root.exists()
