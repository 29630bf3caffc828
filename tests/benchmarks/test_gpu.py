"""The GPU's benchmark, in its smallest form, on the CPU."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, random_bases
from benchmarks.gpu_wheels import trimmed
from benchmarks.random_bases import SHAPES, random_model

SCRIPT = Path(gpu.__file__).with_suffix(".sh")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The figures of a run of the script."""
    out = tmp_path_factory.mktemp("out")
    settings = {"OUT": str(out), "PYTHON": sys.executable, "DEVICE": "cpu", "SHAPES": "smallest"}
    subprocess.run([SCRIPT], env={**os.environ, **settings}, check=True, capture_output=True)
    return json.loads((out / "gpu.json").read_text(encoding="utf-8"))["figures"]


@pytest.mark.parametrize("case", ["smallest, NF4", "smallest, not quantised"])
def test_the_script_compares_steps_that_begin_at_the_same_loss(figures: Any, case: str) -> None:
    found = figures[case]
    for name in ("bare", "bare, same layers"):
        # NF4's kernels differ with and without a gradient to the input, and by the rows that they get.
        assert found["ours"]["loss"] == pytest.approx(found[name]["loss"], rel=0.01)
        assert found[f"times {name}"] == found["ours"]["tokens_per_second"] / found[name]["tokens_per_second"]
    assert 0 < found["round"]["overhead"] < 1
    assert set(found["attribution"]) >= {"attribute_to_generation", "direct-logit_to_generation"}
    assert found["removal"]["seconds"] > 0


def test_a_base_of_random_weights_is_in_nf4_but_for_its_output() -> None:
    network = random_model(SHAPES["smallest"], "nf4", CPU).module.get_base_model()
    kinds = {name: type(layer).__name__ for name, layer in network.named_modules() if hasattr(layer, "in_features")}
    assert kinds.pop("lm_head") == "Linear"
    bases = {kind for name, kind in kinds.items() if "lora_" not in name}
    assert bases == {"Linear4bit"}


def test_without_bitsandbytes_the_rows_in_nf4_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(random_bases, "import_module", absent)
    assert gpu.measure(SHAPES["smallest"], "nf4", CPU) == {"not measured": "No module named 'bitsandbytes.nn'"}


def test_a_shape_for_which_no_time_is_left_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["gpu", "--shapes", "smallest", "--seconds", "-1", "--device", "cpu", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["figures"]
    assert found["smallest, NF4"] == {"not measured": "-1 s were left, the longest before it took 0 s"}


def test_a_step_that_finds_no_memory_says_so_and_rows_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, bool]] = []

    def ours(bench: gpu.Bench, _model: object) -> dict[str, Any]:
        tried.append((bench.rows, bench.checkpointing))

        def step(_batch: object) -> float:
            if (bench.rows, bench.checkpointing) != (1, True):
                raise torch.cuda.OutOfMemoryError
            return 1.0

        return bench.speed(step)

    monkeypatch.setattr(gpu, "ours", ours)
    shape = SHAPES["smallest"]
    fitted = gpu.fitted(shape, None, CPU)  # type: ignore[arg-type] - the step above needs no model
    assert (fitted.rows, fitted.checkpointing) == (1, True)
    assert tried == [(2, False), (1, False), (2, True), (1, True)]


def test_a_wheel_keeps_one_gpus_library_and_the_cpus(tmp_path: Path) -> None:
    names = ["b/libbitsandbytes_cpu.so", *(f"b/libbitsandbytes_{kind}.so" for kind in ("cuda128", "cuda130", "rocm64"))]
    whole = tmp_path / "b-1-py3-none-any.whl"
    with zipfile.ZipFile(whole, "w") as file:
        for name in names:
            file.writestr(name, "x")
        file.writestr("b-1.dist-info/RECORD", "".join(f"{name},sha256=0,1\n" for name in names))
    out = tmp_path / "out"
    out.mkdir()
    with zipfile.ZipFile(trimmed(whole, out, "130")) as less:
        kept = ["b/libbitsandbytes_cpu.so", "b/libbitsandbytes_cuda130.so"]
        assert less.namelist() == [*kept, "b-1.dist-info/RECORD"]
        assert [line.split(",")[0] for line in less.read("b-1.dist-info/RECORD").decode().splitlines()] == kept
    with pytest.raises(SystemExit, match=r"expected a version among .*cuda128.*, got 999"):
        trimmed(whole, out, "999")
