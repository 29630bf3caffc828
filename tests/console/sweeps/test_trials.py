"""Trials as processes: what a run leaves, how it ends, and that a sweep that was killed goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray
from ray.tune.experiment import Trial as TuneTrial

from console.sweeps import trials
from console.sweeps.plan import Sweep
from console.sweeps.trials import (
    FoedusRun,
    Listener,
    check_room,
    config_of,
    folder,
    last_line,
    result_of,
    run_trials,
    scheduler,
    space,
    start_ray,
    validation_losses,
)
from core.errors import RunError, UsageError
from core.storage.events import EventLog
from tests.commands import make_base, make_data
from tests.waiting import until

FOEDUS = Path(sys.executable).with_name("foedus")
QUICK = {
    "quantisation": "none", "rounds": 2, "local-steps": 1, "local-epochs": 0.0, "batch-size": 1, "max-length": 32,
    "evaluate-limit": 1, "calibration": 0, "private-chain": "none", "participation": "all",
}  # fmt: skip


def started(out: Path, **settings: object) -> FoedusRun:
    """A trial's trainable, outside of Ray."""
    plan = Sweep.parse({"settings": settings, "backend": "inline"})
    return FoedusRun(space(plan, out) | {"trial": config_of(plan.trials()[0])})


def test_a_run_that_fails_fails_its_trial_with_its_last_words(tmp_path: Path) -> None:
    trial = started(tmp_path, base="foedus-tiny", rank=4096, **QUICK)
    with pytest.raises(RunError, match="rank: expected"):
        trial.step()
    assert "rank: expected" in last_line(trial.folder / "log")
    assert not (trial.folder / "result.json").exists()


def test_a_trial_with_a_result_starts_no_run(tmp_path: Path) -> None:
    (plan,) = Sweep.parse({"settings": QUICK}).trials()
    place = folder(tmp_path, plan.name)
    place.mkdir(parents=True)
    (place / "result.json").write_text('{"seconds": 1}', encoding="utf-8")
    trial = started(tmp_path, **QUICK)
    assert trial.process is None
    assert trial.step() == {"done": True}
    assert result_of(tmp_path, plan) == {"seconds": 1}


def test_a_scheduler_is_told_of_every_round_also_by_a_trial_that_has_its_result(tmp_path: Path) -> None:
    plan = Sweep.parse({"settings": QUICK, "stop": "asha"})
    (one,) = plan.trials()
    place = folder(tmp_path, one.name)
    log = EventLog(place / "state" / "events" / "one.jsonl")
    log.path.parent.mkdir(parents=True)
    for number, loss in enumerate((6.0, 5.0), 1):
        log.write("evaluated", round=number, validation={"a": loss})
    (place / "result.json").write_text('{"seconds": 1}', encoding="utf-8")
    trial = FoedusRun(space(plan, tmp_path) | {"trial": config_of(one)})
    # Tune ends a sweep of which any result, the last one, too, lacks the figure that trials are compared by.
    assert [trial.step() for _ in range(3)] == [
        {"validation": 6.0}, {"validation": 5.0}, {"done": True, "validation": 5.0},
    ]  # fmt: skip


def test_what_a_killed_sweep_left_is_begun_anew_and_a_stopped_trial_ends_its_run(tmp_path: Path) -> None:
    (plan,) = Sweep.parse({"settings": QUICK}).trials()
    left = folder(tmp_path, plan.name) / "state"
    left.mkdir(parents=True)
    trial = started(tmp_path, **QUICK)
    assert trial.process is not None
    assert not left.exists() or not list(left.iterdir())
    trial.cleanup()
    assert trial.process.poll() is not None


def test_losses_are_read_from_where_the_reader_stopped(tmp_path: Path) -> None:
    assert validation_losses(tmp_path) == ({}, 0)
    log = EventLog(tmp_path / "events" / "one.jsonl")
    log.path.parent.mkdir()
    log.write("evaluated", round=1, validation={"a": 4.0, "b": 6.0})
    found, offset = validation_losses(tmp_path)
    assert found == {1: 5.0}
    log.write("evaluated", round=2, validation={"a": 2.0})
    assert validation_losses(tmp_path, offset)[0] == {2: 2.0}


def test_ray_that_a_busy_machine_did_not_start_in_time_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def late(address: str, **_: object) -> None:
        tries.append(address)
        if len(tries) < 3:
            raise OSError("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", late)
    start_ray("")
    assert tries == ["local"] * 3

    def never(*_: object, **__: object) -> None:
        raise OSError("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", never)
    with pytest.raises(RunError, match=r"expected Ray to start, got .* timed out during startup\.: --resume goes on"):
        start_ray("")

    def nobody(*_: object, **__: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(RunError, match="--address: expected a Ray cluster at 'here:1', got nobody there"):
        start_ray("here:1")


@pytest.mark.parametrize(("cpus", "gpus"), [(4.5, 0.0), (1.0, 0.5), (4.0, 1.0)])
def test_trials_that_no_machine_has_room_for_are_refused_and_not_waited_for(
    cpus: float, gpus: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = [{"CPU": 4.0}, {"CPU": 4.0}, {"CPU": 2.0, "GPU": 0.25}, {}]
    nodes = [{"Alive": True, "Resources": room} for room in machines]
    gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, gone])
    with pytest.raises(
        UsageError, match=rf"one machine has, 0 and 0 or 2 and 0.25 or 4 and 0, got {cpus:g} and {gpus:g}"
    ):
        check_room(Sweep(cpus=cpus, gpus=gpus))
    check_room(Sweep(cpus=4.0))
    check_room(Sweep(cpus=2.0, gpus=0.25))


@pytest.mark.parametrize("stop", ["asha", "median"])
def test_trials_are_compared_round_by_round_and_none_has_to_wait(stop: str) -> None:
    rule = scheduler(Sweep(stop=stop))
    tune = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
    decisions = []
    # Each faster than those before: by seconds the last could be compared with nobody.
    for number, loss in enumerate((2.0, 1.9, 1.8, 3.0)):
        trial = TuneTrial("FoedusRun", trial_id=str(number), stub=True)
        rule.on_trial_add(tune, trial)
        result = {"training_iteration": 1, "time_total_s": 100.0 - number, "validation": loss}
        decisions.append(rule.on_trial_result(tune, trial, result))
    assert decisions == ["CONTINUE"] * 3 + ["STOP"]


def test_a_sweep_that_tune_ends_before_its_trials_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Sweep.parse({"settings": QUICK})
    monkeypatch.setattr(trials, "start_ray", lambda _address: None)
    monkeypatch.setattr(trials, "check_room", lambda _sweep: None)
    monkeypatch.setattr(trials.tune, "Tuner", lambda *_, **__: SimpleNamespace(fit=lambda: None))
    with pytest.raises(KeyboardInterrupt):
        run_trials(plan, plan.trials(), tmp_path, "", print)


@pytest.mark.parametrize(
    ("said", "why", "last"),
    [
        ("foedus: no room\n", "core.errors.RunError: foedus: no room", "foedus: no room"),
        ("round 3\n", "ray.exceptions.ActorDiedError: killed", "ray.exceptions.ActorDiedError: killed"),
        (None, "FileNotFoundError: no foedus there", "FileNotFoundError: no foedus there"),
    ],
)
def test_a_trial_that_ray_lost_or_could_not_start_says_so(
    said: str | None, why: str, last: str, tmp_path: Path
) -> None:
    place = folder(tmp_path, "one")
    if said:
        place.mkdir(parents=True)
        (place / "log").write_text(said, encoding="utf-8")
    (tmp_path / "error.txt").write_text(f"Failure # 1\nTraceback\n{why}\n\n", encoding="utf-8")
    trial = SimpleNamespace(config={"trial": {"name": "one"}}, error_file=str(tmp_path / "error.txt"))
    told: list[tuple[int, str, str]] = []
    Listener(tmp_path, lambda *ended: told.append(ended)).on_trial_error(1, [], trial)
    assert told == [(1, "one", "failed")]
    assert last_line(place / "log") == last


def test_a_trials_simulation_takes_no_more_processors_than_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, env, **__: given.append(env["FOEDUS_CPUS"]))
    for cpus in (0.5, 1.0, 2.5):
        (trial,) = (plan := Sweep.parse({"settings": QUICK, "cpus": cpus})).trials()
        FoedusRun(space(plan, tmp_path) | {"trial": config_of(trial)})
    assert given == ["1", "1", "2"]


def test_a_signal_ends_a_sweep_as_it_did_before_ray_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", lambda *_, **__: signal.signal(signal.SIGTERM, lambda *_: None))
    start_ray("")
    assert signal.getsignal(signal.SIGTERM) is before


def living(out: Path) -> list[psutil.Process]:
    """The processes with a folder in their command."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(out) in " ".join(p.info["cmdline"] or [])]


@pytest.mark.slow
@pytest.mark.chain
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_leaves_neither_a_run_nor_its_chain(tmp_path: Path, number: signal.Signals) -> None:
    settings = QUICK | {
        "rounds": 500,
        "base": str(make_base(tmp_path / "base")),
        "data": str(make_data(tmp_path / "data")),
    }
    file, out = tmp_path / "long.toml", tmp_path / "out"
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    file.write_text("\n".join(['backend = "inline"', "[settings]", *lines]), encoding="utf-8")
    with (tmp_path / "said").open("wb") as said:
        sweep = subprocess.Popen([FOEDUS, "sweep", file, "--out", out], stdout=subprocess.DEVNULL, stderr=said)
    until(lambda: '"round":3' in "".join(p.read_text() for p in out.glob("trials/*/state/events/*.jsonl")))
    sweep.send_signal(number)
    assert sweep.wait() == (-9 if number == signal.SIGKILL else 1), (tmp_path / "said").read_text()  # 1 is Ray's choice
    until(lambda: not living(out))


@pytest.mark.slow
@pytest.mark.chain
def test_a_sweep_of_eight_with_one_that_fails_ends_resumes_after_a_kill_and_draws_its_plots(tmp_path: Path) -> None:
    settings = {
        **QUICK,
        "rounds": 1,
        "base": str(make_base(tmp_path / "base")),
        "data": str(make_data(tmp_path / "data")),
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    # A rank above the base's width passes as a setting, and fails when the federation is founded.
    grid = "[grid]\nrank = [1, 2, 3, 4, 5, 6, 7, 4096]\n"
    file = tmp_path / "ranks.toml"
    file.write_text("\n".join(['backend = "inline"', "[settings]", *lines, grid]), encoding="utf-8")
    out, command = tmp_path / "out", [FOEDUS, "sweep", file, "--json", "--out"]
    killed = subprocess.Popen([*command, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (first := list(out.glob("trials/*/result.json"))):
        assert killed.poll() is None
        time.sleep(0.2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    written = first[0].stat().st_mtime_ns
    again = subprocess.run([*command, out], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (2, "")
    assert "--resume goes on with it" in again.stderr
    done = subprocess.run([*command, out, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # a trial has failed
    found = json.loads(done.stdout)
    ended = [(trial["status"], trial.get("detail")) for trial in found["trials"]]
    assert [status for status, _ in ended] == ["done"] * 7 + ["failed"], ended
    assert "rank: expected" in found["trials"][-1]["detail"]
    assert found["best"]["settings"]["rank"] in range(1, 8)
    assert first[0].stat().st_mtime_ns == written, "what was done is not done again"
    html = Path(found["files"]["html"]).read_text(encoding="utf-8")
    assert html.count("<circle") == 7
    assert html.count("<polyline") == 7
    assert not living(out)
