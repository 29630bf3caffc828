"""`foedus run`: what it reports, and every mistake as one line on stderr and an exit code."""

import errno
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chain.joining import JoinKit
from console.deployments.organisation_folder import Choices, join
from core.config import RunConfig
from core.errors import RunError
from core.storage.state_folder import State
from tests.commands import World, foedus
from tests.console.deployments.founded import founded

# --- usage: exit 2, before anything is started -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (("--data", "nowhere"), ("data", "nowhere", "NAME.jsonl")),
        (("--validation", "nowhere.jsonl"), ("validation", "nowhere.jsonl", "JSON Lines")),
        (("--base", "./nowhere"), ("nowhere", "config.json")),
        (("--set", "rouns=3"), ("--set: expected a setting, got 'rouns': did you mean rounds?",)),
        (("--set", "rounds"), ("--set: expected NAME=VALUE", "'rounds'")),
        (("--set", "rounds=three"), ("--set", "like 20", "'rounds=three'")),
        (("--set", "rounds=1.5"), ("rounds", "1.5", "integer")),
        (("--set", "rounds=true"), ("rounds", "True", "integer")),
        (("--rounds", "0"), ("rounds", "1 to 99999", "0")),
        (("--aggregation", "mean"), ("aggregation", "'mean'", "frozen-a, fedavg, stack, svd")),
        (("--set", "learning-rate=inf"), ("learning-rate", "inf", "1e-09 to 10")),
        (("--config", "missing.toml"), ("missing.toml", "TOML", "No such file")),
        (("--config", "broken.toml"), ("broken.toml", "line 1")),
        (("--config", "unknown.toml"), ("'rouns'", "rounds")),
        (("--config", "typed.toml"), ("validation", "5", "text")),
        (("--set", "coordinator-key=gone"), ("coordinator-key", "gone", "key file")),
        (("--resume", "nobody"), ("'nobody'", "No such file")),
        (("--resume", "../x"), ("run id", "'../x'")),
        (("--rounds", "three"), ("--rounds", "three")),
        (("--wire", "int8"), ("expected --set wire=VALUE", "got --wire")),
        (("--no-such-option",), ("--no-such-option",)),
        (("--backend", "slurm"), ("--backend", "slurm", "inline")),
        (("--store", "no-such-scheme://bucket"), ("no-such-scheme", "fsspec")),
        (("--auditors", "0x1234"), ("auditors", "'0x1234'", "02 or 03")),
    ],
)
def test_wrong_usage_is_told_at_once(
    world: World, options: tuple[str, ...], facts: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text("rounds = = 3", encoding="utf-8")
    Path("unknown.toml").write_text("rouns = 3", encoding="utf-8")
    Path("typed.toml").write_text("validation = 5", encoding="utf-8")
    monkeypatch.setattr("console.run.federate", None)  # nothing may get so far
    done = foedus(*world.run(), *options)
    assert done.code == 2
    assert all(fact in done.error for fact in facts), done.error


# --- what the ServerApp finds: told by the event log, the exit code with it ------------------------------------


def test_an_empty_data_folder(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = replace(world, data=tmp_path / "empty").inline()
    assert done.code == 2
    assert str(tmp_path / "empty") in done.error
    assert "NAME.jsonl or NAME/train.jsonl" in done.error


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
    assert "3 (coding, financial, medical)" in done.error
    assert "4" in done.error


@pytest.mark.parametrize(
    ("missing", "fact"), [("tokenizer*", "tokenizer files"), ("*.safetensors", "safetensors weights")]
)
@pytest.mark.chain
def test_an_incomplete_base_model(world: World, tmp_path: Path, missing: str, fact: str) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    left_out = set(world.base.glob(missing))
    for path in set(world.base.iterdir()) - left_out:
        (folder / path.name).write_bytes(path.read_bytes())
    done = replace(world, base=folder).inline()
    assert done.code == 2
    assert fact in done.error


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
    assert "seed" in done.error
    assert "8" in done.error
    assert "7" in done.error


@pytest.mark.chain
def test_a_failed_run_does_not_block_the_next(world: World) -> None:
    assert world.inline("--organisations", 4).code == 2
    assert world.inline().code == 0
    assert world.command("verify").json["ok"]
    assert len(list((world.state / "runs").iterdir())) == 1


# --- the machine -----------------------------------------------------------------------------------------------


def test_the_port_of_the_superlink_in_use(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr("console.backends.ray.free_port", lambda: port)
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
    real, left = os.fsync, 6  # once there is a genesis: a run that never began could not be resumed

    def full(descriptor: int) -> None:
        nonlocal left
        left -= bool(State(world.state).runs())
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


def test_a_run_on_a_deployment_takes_what_was_decided_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, seen = founded(tmp_path), []
    assert "expected organisations, got none" in foedus("run", "--federation", found.folder).error
    kit = JoinKit.from_json(found.kit_file("medical").read_bytes())
    request = found.admit(join(kit, tmp_path / "medical", Choices()))

    def take(settings: RunConfig, _: object, folder: Path | None) -> None:
        seen.append((settings, folder))
        raise RunError("enough")

    monkeypatch.setattr("console.run.federate", take)
    assert foedus("run", "--federation", found.folder, "--rounds", 3).error == "enough"
    ((settings, folder),) = seen
    assert (folder, settings.rounds, settings.learning_rate) == (found.folder, 3, 0.01)
    assert settings.listed == {request.address.lower(): 0}
    assert settings.state == str(found.state)
    for option, name in (("--organisations", "organisations"), ("--chain", "chain")):
        refused = foedus("run", "--federation", found.folder, option, "2" if name == "organisations" else "anvil").error
        assert refused.startswith(f"{name}: expected")
        assert "as federation.toml decides it" in refused
    assert "expected a folder that `foedus deploy init` has made" in foedus("run", "--federation", world.state).error


@pytest.mark.chain
def test_a_run_begins_with_what_another_serves(finished: World, tmp_path: Path) -> None:
    world = World(finished.base, finished.data, tmp_path / "state")
    shutil.copytree(finished.state, world.state)
    former = world.command("status").json["run"]
    done = world.inline("--from", former, "--set", "rank=4")
    assert done.code == 0, done.err
    origin = done.json["origin"]
    assert (origin["run"], origin["here"], origin["erased"]) == (former, True, [])
    report = world.command("verify", done.json["run"]).json
    assert (report["ok"], report["failures"], report["checked"]["former runs"]) == (True, [], 1)
    assert report["origin"] == origin
    assert f"From     run {former}" in foedus("verify", done.json["run"], "--state", world.state).out
    traced = world.command("attribute", done.json["run"], "--prompt", "Who?", "--response", "Me.").json
    assert set(traced["organisations"]) == {"coding", "financial", "medical", f"run:{former}"}
    other = foedus(*world.run("--backend", "inline", "--from", former, "--set", "alpha=9"))
    assert "alpha: expected" in other.error
    assert "expected its settings" in foedus(*world.run("--backend", "inline", "--from", "none")).error
    world.command("chain stop")
