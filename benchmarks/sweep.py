"""What a sweep costs beside the same runs one after another, what a kill costs it, and what stopping early saves.

Eight federations on foedus-tiny and the samples differ in the learning rate, the last of which no update survives: its
run fails. They are run one after another by `foedus run`; by `foedus sweep`, as many at once as there are cores; by a
sweep that is killed after half of those seconds, and resumed; and by one that stops early by ASHA. What a kill loses
are the seconds of the trials that were under way, which begin anew. Everything measured lies in WORK: a measurement
that stops goes on from there. Time is on the wall: use a machine that does nothing else.

    python -m benchmarks.sweep --work DIR [--rounds 4] [--steps 10]
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import arguments, report
from benchmarks.command_line import FOEDUS, foedus, given
from benchmarks.speaking import once
from benchmarks.timing import wall_timed
from chain import control
from console.sweeps.plan import Sweep, Trial
from console.sweeps.trials import folder, last_line

SEED = 7
RATES = (1e-3, 1e-4, 8e-3, 6e-4, 4e-3, 3e-4, 2e-3, 10.0)
"""Learning rates, in no order: ASHA compares a trial with those before it.

With the last every update is beyond the bound of its norm, and no round reaches its quorum.
"""
MOST_OF_LOOP = 0.75
"""Target: the time of a sweep on two cores, relative to the same runs one after another."""
_SETTINGS: Mapping[str, bool | int | float | str] = {
    "base": "foedus-tiny", "quantisation": "none", "participation": "all", "batch-size": 2, "max-length": 64,
    "rank": 8, "alpha": 16.0, "evaluate-limit": 4, "calibration": 0, "sample-answers": 0, "private-chain": "none",
    "retries": 0, "local-epochs": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Sweeping:
    """A sweep of RATES in a folder of its own."""

    folder: Path
    rounds: int
    steps: int
    stop: str = "none"

    @property
    def file(self) -> Path:
        """Its file, written anew."""
        settings = {**_SETTINGS, "rounds": self.rounds, "local-steps": self.steps}
        lines = [
            f'backend = "inline"\nstop = "{self.stop}"\nseeds = [{SEED}]\n[settings]',
            *(f"{name} = {json.dumps(value)}" for name, value in settings.items()),
            f"[grid]\nlearning-rate = {json.dumps(RATES)}\n",
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "sweep.toml"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Its trials."""
        return Sweep.read(self.file).trials()

    def one_after_another(self) -> dict[str, Any]:
        """Seconds of every trial's own command, in turn."""
        began = time.monotonic()
        for trial in self.trials:
            self._run(trial)
        return {"seconds": time.monotonic() - began}

    def _run(self, trial: Trial) -> None:
        state = self.folder / trial.name
        try:
            foedus("run", "--state", str(state), "--backend", "inline", *given(trial.settings))
        except RuntimeError as error:
            sys.stderr.write(f"{error}\n")  # the one that fails: a loop in a shell would go on, too
        finally:
            control.stop("embedded", state)

    def whole(self) -> dict[str, Any]:
        """Seconds of the sweep, and what it says."""
        said, seconds = wall_timed(self._to_end)
        return {"seconds": seconds, **said}

    def killed(self, after: float) -> dict[str, Any]:
        """The same of a sweep that is killed after so many seconds and resumed, and what that lost."""
        process = self._start()
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        else:
            raise RuntimeError(f"the sweep ended before it was killed: {self._last_words()}")
        lost = self.under_way(time.time())
        process.wait()
        resumed, seconds = wall_timed(partial(self._to_end, "--resume"))
        return {"seconds": after + seconds, "begun_anew": len(lost), "lost_seconds": sum(lost), **resumed}

    def _start(self, *options: str) -> subprocess.Popen[str]:
        command = [str(FOEDUS), "sweep", str(self.file), "--out", str(self.folder / "out"), "--json", *options]
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def _to_end(self, *options: str) -> dict[str, Any]:
        process = self._start(*options)
        printed, _ = process.communicate()
        # With 1 where a trial has failed, as one does here, but also without any results where Ray does not start.
        if process.returncode != 1 or not printed:
            raise RuntimeError(f"expected results and exit status 1, got {process.returncode}: {self._last_words()}")
        found: dict[str, Any] = json.loads(printed)
        plotted = Path(found["files"]["html"]).read_text(encoding="utf-8").count("<circle")
        return {**found, "plotted": plotted}

    def _last_words(self) -> str:
        return last_line(self.folder / "log")

    def under_way(self, now: float) -> list[float]:
        """The seconds that each trial has run whose result is not there; its output's file is made when it begins."""
        begun = (folder(self.folder / "out", trial.name) / "printed" for trial in self.trials)
        return [now - path.stat().st_mtime for path in begun if path.exists()]


def measured(sweep: Sweeping, measure: Callable[[Sweeping], dict[str, Any]]) -> dict[str, Any]:
    """What is measured in the sweep's folder, without what a measurement that stopped has left there."""

    def anew() -> dict[str, Any]:
        shutil.rmtree(sweep.folder, ignore_errors=True)
        return measure(sweep)

    found: dict[str, Any] = once(sweep.folder.with_suffix(".json"), anew)
    return found


def figures(loop: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds, how trials ended and which was best, of each kind of sweep; and the trials of the first."""
    whole = next(iter(kinds.values()))
    return {
        "most_of_loop": MOST_OF_LOOP,
        "seconds_one_after_another": loop["seconds"],
        "of_loop": whole["seconds"] / loop["seconds"],
        "sweeps": [_row(name, found) for name, found in kinds.items()],
        "trials": [
            {"learning_rate": trial["settings"]["learning-rate"], "status": trial["status"], **trial["figures"]}
            for trial in whole["trials"]
        ],
    }


def _row(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    ended = Counter(trial["status"] for trial in found["trials"])
    return {
        "sweep": name,
        "seconds": found["seconds"],
        **{status: ended[status] for status in ("done", "failed", "stopped")},
        "begun_anew": found.get("begun_anew", 0),
        "lost_seconds": found.get("lost_seconds", 0.0),
        "plotted": found["plotted"],
        "best_learning_rate": found["best"]["settings"]["learning-rate"],
        "its_loss": found["best"]["mean"],
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=arguments.output, required=True, help="a folder for the runs and what is measured"
    )
    parser.add_argument("--rounds", type=arguments.count(), default=4)
    parser.add_argument("--steps", type=arguments.count(), default=10, help="optimiser steps of a round")
    options = parser.parse_args()
    work, size = options.work.absolute(), (options.rounds, options.steps)
    loop = measured(Sweeping(work / "loop", *size), Sweeping.one_after_another)
    whole = measured(Sweeping(work / "whole", *size), Sweeping.whole)
    half = whole["seconds"] / 2
    kinds = {
        "to its end": whole,
        "killed half-way and resumed": measured(Sweeping(work / "killed", *size), lambda sweep: sweep.killed(half)),
        "stopping early, ASHA": measured(Sweeping(work / "asha", *size, stop="asha"), Sweeping.whole),
    }
    found = figures(loop, kinds)
    report.write("sweep", found, "python -m benchmarks.sweep --work DIR", SEED)
    rows: Sequence[Mapping[str, Any]] = found["sweeps"]
    report.print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    print(f"Target: at most {MOST_OF_LOOP}× the time of a loop. Measured: {found['of_loop']:.2f}×.")


if __name__ == "__main__":
    main()
