"""Options that are wrong end a benchmark before it has begun."""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import arguments, report


def test_a_folder_is_one_that_is_there(tmp_path: Path) -> None:
    assert arguments.folder(str(tmp_path)) == tmp_path
    (tmp_path / "file").touch()
    for name in ("file", "absent"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"expected a folder, got .*{name}"):
            arguments.folder(str(tmp_path / name))


def test_an_output_folder_is_made(tmp_path: Path) -> None:
    assert arguments.output(str(tmp_path / "a" / "b")).is_dir()
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a folder to write in, got"):
            arguments.output(str(place))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_can_be_written_in(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(argparse.ArgumentTypeError, match="its permissions forbid it"):
        arguments.output(str(tmp_path))


@pytest.mark.parametrize("text", ["0", "4", "-1", "+1", "1.5", "1_0", " 1", "²", "٣", "", "three", "9" * 5000])
def test_a_count_is_a_whole_number_within_its_bounds(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number, 1 to 3, got"):
        arguments.count(most=3)(text)


def test_bounds_are_included_and_may_be_open() -> None:
    assert [arguments.count(0, 3)(text) for text in ("0", "3")] == [0, 3]
    assert arguments.count()("12345") == 12345


@pytest.mark.parametrize(
    ("module", "options", "fault"),
    [
        ("lds", "--work WORK --seeds 0", "--seeds: expected a whole number, 1 to 5, got '0'"),
        ("rules", "--work WORK --seeds -1", "--seeds: expected a whole number, 1 to 5, got '-1'"),
        ("records", "--work FILE", "--work: expected a folder to write in"),
        ("speaking", "--work WORK --data WORK/none", "--data: expected a folder, got"),
        ("speaking", "--work WORK --data WORK --name mine", "--data: expected NAME/dev.jsonl with facts, got none"),
        ("speaking", "--work WORK --erase nobody", "--erase: expected one of "),
        ("speaking", "--work WORK --fitted 99", "--fitted: expected fewer than the held-out records of each, got 99"),
        ("provenance.speaking", "--work WORK --data WORK/none", "--data: expected a folder, got"),
        ("provenance.speaking", "--work WORK --data WORK --seeds 9", "--seeds: expected a whole number, 1 to 5"),
        ("provenance.speaking", "--work WORK --data WORK --only", "--only: expected at least one argument"),
        (
            "provenance.__main__",
            "--data WORK --bases WORK --work WORK --base no paper",
            "--base: expected a folder in ",
        ),
        ("provenance.speed", "--repeats 0", "--repeats: expected a whole number, at least 1, got '0'"),
        ("unlearning.__main__", "--data WORK --base WORK --work WORK nosuch", "task: expected some of "),
        ("unlearning.follow", "--data WORK --base WORK --work WORK later nosuch", "task: invalid choice: 'nosuch'"),
        ("federation", "--data WORK/none", "--data: expected a folder, got"),
        ("unlearning.speaking", "--data WORK/none", "--data: expected a folder, got"),
        ("privacy", "--work WORK --data WORK --base none --runs 3", "--runs: expected an even number, got 3"),
        ("gpu", "--device gpu9", "--device: expected a device of this machine, as cpu, got gpu9"),
        ("gpu", "--device cpu --results FILE", "--results: expected a folder to write in"),
    ],
)
def test_a_wrong_option_is_one_line_before_anything_is_measured(
    module: str, options: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "file").touch()
    words = options.replace("WORK", str(tmp_path)).replace("FILE", str(tmp_path / "file")).split()
    monkeypatch.setattr(sys, "argv", [module, *words])
    for name in ("kept", "write"):
        monkeypatch.setattr(report, name, None)
    with pytest.raises(SystemExit) as ended:
        import_module(f"benchmarks.{module}").main()
    assert ended.value.code == 2
    assert fault in capsys.readouterr().err.splitlines()[-1]
