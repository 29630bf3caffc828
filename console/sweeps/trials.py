"""The trials of a sweep on Ray Tune: each is `foedus run` in a process and a state folder of its own.

    OUT/trials/NAME/state/         the run's state folder
    OUT/trials/NAME/log            what it said, and why Ray ended it
    OUT/trials/NAME/result.json    what `foedus run --json` printed, once it has ended well

A trial whose result is there is not run again, so a sweep that was killed goes on where it was. A trial is a Trainable
whose steps are rounds: a scheduler can end one that lags behind. Its process ends with Ray's, however that ends.
"""

import logging
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from chain import control
from console.backends.children import end_with_parent, script
from console.backends.ray import CPUS
from console.sweeps.plan import Settings, Sweep, Trial
from core.canonical import parse_json
from core.errors import RunError, UsageError
from core.storage.events import EventLog

_POLL_SECONDS = 0.3
_PATIENCE_SECONDS = 20.0
_STARTS = 4
"""Tries to start Ray."""
_METRIC = "validation"
_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_kill_child_processes_on_worker_exit": "false",
    "RAY_worker_niceness": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
"""Ray's environment: it says little, looks nothing up, and leaves the working directory as it is.

Its workers are not niced, as they would be by 15: trials are all that they do, and would wait for whatever else runs.
A run ends with its worker by itself (`end_with_parent`), and with it the chains that it has started: Ray would kill it.
"""


def run_trials(
    sweep: Sweep, trials: Sequence[Trial], out: Path, address: str, told: Callable[[int, str, str], None]
) -> dict[str, str]:
    """Run what has no result yet, on a Ray cluster at `address` or one of this machine's own ("").

    Returns how each trial ended, by name: done, failed or stopped; `told` hears how many have ended, and of each
    its name and status. Raises RunError when there is no such cluster, UsageError when no machine of it has room for a
    trial, and KeyboardInterrupt, once every run has ended, where somebody has interrupted it.
    """
    os.environ.update(_QUIET)
    # It would print a trace of our own stack for a run that failed, whose own words are kept.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    listener = Listener(out, told)
    start_ray(address)
    needs = {"cpu": sweep.cpus, "gpu": sweep.gpus}
    given = [config_of(trial) for trial in trials]
    try:
        check_room(sweep)
        with tempfile.TemporaryDirectory() as storage:
            tune.Tuner(
                tune.with_resources(FoedusRun, needs),
                param_space=space(sweep, out) | {"trial": tune.grid_search(given)},
                tune_config=tune.TuneConfig(scheduler=scheduler(sweep), reuse_actors=False),
                run_config=tune.RunConfig(
                    # What a trial leaves is its folder; Ray's own account of it is of no use afterwards.
                    storage_path=storage,
                    verbose=0,
                    callbacks=[listener],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                ),
            ).fit()
    finally:
        ray.shutdown()
    if len(listener.ended) < len(trials):  # Tune takes Ctrl-C for an end like any other
        raise KeyboardInterrupt
    return listener.ended


def start_ray(address: str) -> None:
    """Reach the Ray cluster at `address`, or start one on this machine (""); raises RunError when that fails."""
    leaving = signal.getsignal(signal.SIGTERM)
    for attempt in range(_STARTS):
        try:
            ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(f"--address: expected a Ray cluster at {address!r}, got {error}") from error
        # Ray raises a bare Exception where its own processes have not started within 30 seconds: on a busy machine.
        except Exception as error:
            ray.shutdown()
            if attempt == _STARTS - 1:
                raise RunError(f"expected Ray to start, got {error}: --resume goes on") from error
        else:
            signal.signal(signal.SIGTERM, leaving)  # Ray's own ends this process as a crash does, with a trace
            return


def check_room(sweep: Sweep) -> None:
    """Raise UsageError for trials that no machine of Ray's has room for: Tune would wait for one, without a word."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    rooms = [(room.get("CPU", 0.0), room.get("GPU", 0.0)) for room in machines]
    if not any(sweep.cpus <= cpus and sweep.gpus <= gpus for cpus, gpus in rooms):
        there = " or ".join(f"{cpus:g} and {gpus:g}" for cpus, gpus in sorted(set(rooms)))
        raise UsageError(
            f"expected cpus and gpus of a trial that one machine has, {there}, got {sweep.cpus:g} and {sweep.gpus:g}"
        )


class Listener(tune.Callback):  # type: ignore[misc] # Ray Tune is not typed
    """Notes how each trial ends."""

    def __init__(self, out: Path, told: Callable[[int, str, str], None]) -> None:
        self.out, self.told = out, told
        self.ended: dict[str, str] = {}

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:  # noqa: ARG002 - Tune's signature
        """It has a result, or a scheduler has ended it."""
        name = trial.config["trial"]["name"]
        self._note(name, "done" if (folder(self.out, name) / "result.json").exists() else "stopped")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:  # noqa: ARG002 - Tune's signature
        """Its run failed, and has said why; or Ray could not start it, or lost it."""
        name = trial.config["trial"]["name"]
        if RunError.__name__ not in (why := last_line(Path(trial.error_file))):
            place = folder(self.out, name)
            place.mkdir(parents=True, exist_ok=True)
            with (place / "log").open("a", encoding="utf-8") as log:
                log.write(f"{why}\n")
        self._note(name, "failed")

    def _note(self, name: str, status: str) -> None:
        self.ended[name] = status
        self.told(len(self.ended), name, status)


def space(sweep: Sweep, out: Path) -> Settings:
    """What all trials of a sweep are given."""
    return {"out": str(out), "backend": sweep.backend.value, "cpus": sweep.cpus, "stops": sweep.stop != "none"}


def config_of(trial: Trial) -> Settings:
    """What a trial alone is given, as plain data."""
    return {"name": trial.name, "settings": trial.settings}


def folder(out: Path, name: str) -> Path:
    """The folder of a trial."""
    return out / "trials" / name


def validation_losses(state: Path, offset: int = 0) -> tuple[dict[int, float], int]:
    """The mean loss on the shared validation set by round, from an offset of the event log, and the next offset."""
    # A trial's state has one run.
    log = next((state / "events").glob("*.jsonl"), None)
    if log is None:
        return {}, 0
    events, end = EventLog.read(log, offset)
    evaluated = (event for event in events if event["event"] == "evaluated" and event.get("validation"))
    return {event["round"]: fmean(event["validation"].values()) for event in evaluated}, end


class FoedusRun(tune.Trainable):  # type: ignore[misc] # Ray Tune is not typed
    """One trial; `config` is what `space` has, and its `config_of` under "trial"."""

    def setup(self, config: Settings) -> None:
        """Start its run, unless it has a result."""
        trial, self.stops = config["trial"], bool(config["stops"])
        self.offset, self.losses, self.loss = 0, dict[int, float](), math.inf
        self.folder = folder(Path(config["out"]), trial["name"])
        self.process: subprocess.Popen[bytes] | None = None
        if (self.folder / "result.json").exists():
            return
        # Of a sweep that was killed: a run that ended amid a round is not worth the code that finds out where.
        self.end_chains()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        # As TOML has it, which is how --set reads a value.
        settings = {
            n: str(value).lower() if isinstance(value, bool) else value for n, value in trial["settings"].items()
        }
        given = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        state = ("--state", str(self.folder / "state"))
        # Ray's own settings are of this cluster, and not of the one that the run starts.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment[CPUS] = str(max(1, int(config["cpus"])))
        with (self.folder / "log").open("wb") as log, (self.folder / "printed").open("wb") as printed:
            self.process = subprocess.Popen(  # noqa: S603 - our own command, with settings that were checked
                [*script("foedus"), "run", *state, "--backend", config["backend"], "--json", *given],
                env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=log,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it makes one system call, and takes no lock
            )  # fmt: skip

    def step(self) -> dict[str, Any]:
        """Wait for the next round, where a scheduler asks for rounds, or for the end."""
        while True:
            running = self.process is not None and self.process.poll() is None
            if self.stops:
                found, self.offset = validation_losses(self.folder / "state", self.offset)
                self.losses |= found
            if self.losses:  # the earliest round that was not told yet
                self.loss = self.losses.pop(min(self.losses))
                return {_METRIC: self.loss}
            if not running:
                break
            time.sleep(_POLL_SECONDS)
        if self.process is not None:
            self.end_chains()
            if self.process.returncode:
                raise RunError(last_line(self.folder / "log"))
            # Under its name only when it is whole: a sweep that goes on must not take half a result for one.
            (self.folder / "printed").replace(self.folder / "result.json")
        # Tune ends the whole sweep for a result without what its scheduler compares.
        return {"done": True, _METRIC: self.loss} if self.stops else {"done": True}

    def cleanup(self) -> None:
        """End the run, where a scheduler or a failure ends the trial before it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self.end_chains()

    def end_chains(self) -> None:
        """End the development chains of its state folder: of many trials, each would stay until it is idle for long."""
        for chain in ("embedded", "anvil"):
            control.stop(chain, self.folder / "state")


def last_line(log: Path) -> str:
    """The last line that a run said."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def result_of(out: Path, trial: Trial) -> Mapping[str, Any] | None:
    """What a trial's run printed; None where it has not ended well."""
    path = folder(out, trial.name) / "result.json"
    if not path.exists():
        return None
    found: Mapping[str, Any] = parse_json(path.read_bytes())
    return found


def scheduler(sweep: Sweep) -> TrialScheduler:
    """The rule of Tune's that ends trials; a step of it is a round."""
    among: dict[str, Any] = {"time_attr": "training_iteration", "metric": _METRIC, "mode": "min", "grace_period": 1}
    if sweep.stop == "asha":
        return ASHAScheduler(**among, max_t=10**6, reduction_factor=2)
    if sweep.stop == "median":
        # It would have a trial wait for others to compare it with, which a run cannot: it would begin anew.
        return MedianStoppingRule(**among, min_time_slice=math.inf)
    return FIFOScheduler()
