"""Every mistake is one line on stderr that says what was got and what was wanted, and an exit code."""

import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.storage.state_folder import State
from tests.commands import World, ended, foedus, started

# --- usage: exit 2, before anything is started -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--data", "nowhere"), "nowhere: got no such folder, wanted"),
        (("--validation", "nowhere.jsonl"), "nowhere.jsonl: got no such file, wanted JSON Lines"),
        (("--base", "./nowhere"), "nowhere: got no config.json there, wanted a folder"),
        (("--set", "rouns=3"), "--set got 'rouns=3', key=value with a setting's name wanted"),
        (("--set", "rounds"), "--set got 'rounds', key=value"),
        (("--set", "rounds=three"), "--set got 'rounds=three', a value like 3 wanted"),
        (("--set", "rounds=1.5"), "rounds is 1.5 (float), an integer wanted"),
        (("--set", "rounds=true"), "rounds is True (bool), an integer wanted"),
        (("--rounds", "0"), "rounds is 0, 1 to 99999 wanted"),
        (("--aggregation", "mean"), "aggregation is 'mean', one of frozen-a, fedavg, stack, svd wanted"),
        (("--set", "learning-rate=inf"), "learning-rate is inf, 1e-09 to 10 wanted"),
        (("--config", "missing.toml"), "missing.toml: No such file or directory, a TOML of settings wanted"),
        (("--config", "broken.toml"), "broken.toml: "),
        (("--config", "unknown.toml"), "unknown setting 'rouns', one of"),
        (("--config", "typed.toml"), "validation is 5 (int), text wanted"),
        (("--set", "coordinator-key=gone"), "gone: got no such file, wanted a key file"),
        (("--resume", "nobody"), "no settings of run 'nobody' in"),
        (("--resume", "../x"), "run id is '../x'"),
        (("--rounds", "three"), "Invalid value for '--rounds'"),
        (("--no-such-option",), "No such option"),
        (("--backend", "slurm"), "Invalid value for '--backend'"),
    ],
)
def test_wrong_usage_is_told_at_once(
    world: World, options: tuple[str, ...], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text("rounds = = 3", encoding="utf-8")
    Path("unknown.toml").write_text("rouns = 3", encoding="utf-8")
    Path("typed.toml").write_text("validation = 5", encoding="utf-8")
    monkeypatch.setattr("console.federation.federate", None)  # nothing may get so far
    done = foedus(*world.run(), *options)
    assert done.code == 2
    assert line in done.error


@pytest.mark.parametrize("arguments", [("fly",), ("status", "nobody"), ("verify",), ("keys", "show", "nowhere")])
def test_what_does_not_exist_is_wrong_usage(world: World, arguments: tuple[str, ...]) -> None:
    state = ("--state", world.state) if arguments[0] in ("status", "verify") else ()
    done = foedus(*arguments, *state)
    assert done.code == 2
    assert done.error


def test_a_key_in_a_checkout_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    done = foedus("keys", "new", tmp_path / "keys" / "mine")
    assert (done.code, list(tmp_path.iterdir())) == (2, [tmp_path / ".git"])
    assert "lies in the checkout" in done.error


# --- what the ServerApp finds: told by the event log, the exit code with it ------------------------------------


def test_an_empty_data_folder(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = replace(world, data=tmp_path / "empty").inline()
    assert done.code == 2
    assert "empty: expected NAME.jsonl or NAME/train.jsonl per organisation, got no organisation" in done.error


def test_a_malformed_record_is_named_by_file_and_line(world: World, tmp_path: Path) -> None:
    good = json.dumps({"question": "?", "answer": "!"})
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "medical.jsonl").write_text(f"{good}\n\n{{'answer'}}\n", encoding="utf-8")
    done = replace(world, data=tmp_path / "bad").inline()
    assert done.code == 2
    assert "medical.jsonl:3: " in done.error


def test_more_organisations_than_data(world: World) -> None:
    done = world.inline("--organisations", 4)
    assert done.code == 2
    assert "expected 4 organisations, got 3 (coding, financial, medical)" in done.error


@pytest.mark.parametrize(
    ("missing", "line"), [("tokenizer*", "got no tokenizer files"), ("*.safetensors", "got no safetensors weights")]
)
@pytest.mark.chain
def test_an_incomplete_base_model(world: World, tmp_path: Path, missing: str, line: str) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    left_out = set(world.base.glob(missing))
    for path in set(world.base.iterdir()) - left_out:
        (folder / path.name).write_bytes(path.read_bytes())
    done = replace(world, base=folder).inline()
    assert done.code == 2
    assert line in done.error


def test_a_chain_that_does_not_answer(world: World) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = world.inline("--chain", url)
    assert done.code == 1
    assert url in done.error


def test_what_answers_is_no_chain(world: World) -> None:
    assert world.inline("--chain", "sepolia").code == 2


@pytest.mark.chain
def test_settings_that_a_run_was_not_founded_with(world: World) -> None:
    run = world.inline().json["run"]
    done = world.inline("--resume", run, "--seed", 8)
    assert done.code == 2
    assert "seed is 8, the run was founded with 7" in done.error


@pytest.mark.chain
def test_a_failed_run_does_not_block_the_next(world: World) -> None:
    assert world.inline("--organisations", 4).code == 2
    assert world.inline().code == 0
    assert world.command("verify").json["ok"]
    assert len(list((world.state / "runs").iterdir())) == 1


# --- the machine -----------------------------------------------------------------------------------------------


@pytest.mark.chain
def test_a_port_in_use(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = foedus("chain", "start", "--port", taken.getsockname()[1], "--state", world.state)
    assert done.code == 1
    assert "in use" in done.error


def test_the_port_of_the_superlink_in_use(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr("console.backends.ray._free_port", lambda: port)
        done = foedus(*world.run())
    assert done.code == 1
    assert f"the SuperLink did not start on 127.0.0.1:{port}" in done.error
    assert "in use" in done.error


def test_a_state_folder_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = replace(world, state=tmp_path / "file" / "state").inline()
    assert done.code == 1
    assert "Not a directory" in done.error


@pytest.mark.chain
def test_a_disk_that_fills_up_while_a_run_writes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.fsync, 6

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr("core.storage.blobs.os.fsync", full)
    done = world.inline()
    monkeypatch.undo()
    assert done.code == 1
    assert "No space left on device" in done.error
    (run,) = State(world.state).runs()
    assert world.resume(run.name).code == 0
    assert world.command("verify").json["ok"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.chain
def test_a_disk_that_is_full(world: World, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes((1 << 20) - (48 << 10)))
    done = replace(world, state=small_disk / "state").inline()
    assert done.code == 1
    assert "No space left on device" in done.error


def test_a_requirement_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')")
    done = ended(started("status", PYTHONPATH=str(tmp_path)))
    assert done.code == 2
    assert done.error == "module 'typer' is not installed: `make setup`, or pip install -r requirements.txt"


def test_an_error_is_one_line(world: World) -> None:
    done = foedus("run", "--data", "one\ntwo", "--state", world.state)
    assert "one two" in done.error
