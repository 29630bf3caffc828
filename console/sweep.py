"""`foedus sweep`: many runs whose settings differ, and which of them did best."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from console.options import JsonOption, StateOption, command_app, state_of
from console.views.tables import answer
from core.errors import UsageError
from core.storage.lock import locked

app = command_app()


@app.command(epilog="Example: foedus sweep conf/sweeps/rules.toml")
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML of what differs: [settings], [grid], [random].")],
    out: Annotated[Path | None, typer.Option(help="Folder of the trials [STATE/sweeps/NAME].")] = None,
    address: Annotated[str, typer.Option(help="A Ray cluster, HOST:PORT or auto; without it this machine.")] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a sweep: what is done is not run again.")
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run a grid or a search of settings, one run each, and name the best."""
    # Ray, pandas and SciPy: seconds that help need not wait.
    from console.sweeps import results  # noqa: PLC0415
    from console.sweeps.page import page  # noqa: PLC0415
    from console.sweeps.plan import Sweep, named  # noqa: PLC0415
    from console.sweeps.trials import result_of, run_trials  # noqa: PLC0415

    plan = Sweep.read(file)
    with named(file):
        trials = {trial.name: trial for trial in plan.trials()}
    place = _folder(out or state_of(state).folder / "sweeps" / file.stem, resume=resume)

    def told(ended: int, name: str, status: str) -> None:
        sys.stderr.write(f"trial {ended} of {len(trials)}: {trials[name].label}: {status}\n")

    done = sum(result_of(place, trial) is not None for trial in trials.values())
    sys.stderr.write(f"sweep of {len(trials)} trials in {place}: {done} done, {len(trials) - done} to run\n")
    with locked(place / "sweep.lock"):
        try:
            statuses = run_trials(plan, tuple(trials.values()), place, address, told)
        except KeyboardInterrupt:
            sys.stderr.write("ending the sweep: the same command with --resume goes on with it\n")
            raise
        rows = results.rows_of(plan, [results.Outcome.of(place, t, statuses[t.name]) for t in trials.values()])
        html = place / "results.html"
        html.write_text(page(plan.figure, rows), encoding="utf-8")
        files = results.write(plan, rows, place) | {"html": str(html)}
    answer(results.to_dict(plan, rows) | {"files": files}, results.tables(plan, rows, html), as_json=as_json)
    return 1 if "failed" in statuses.values() else 0


def _folder(out: Path, *, resume: bool) -> Path:
    """The folder of a sweep, absolute; raises UsageError where there is one that is not to be gone on with."""
    place = out.expanduser().absolute()
    if not resume and (place / "trials").exists():
        raise UsageError(f"{place}: expected no sweep there, got one: --resume goes on with it, --out names another")
    return place
