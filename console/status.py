"""`foedus status`: what becomes of a run, and with --agents what its agents bid, earned and learnt."""

from typing import Annotated

import typer

from console.options import JsonOption, RunArgument, StateOption, command_app, state_of
from console.settings import saved
from console.views import agents, report
from console.views import watch as watching
from console.views.tables import answer, screen
from core.errors import UsageError

app = command_app()


@app.command(epilog="Example: foedus status --json")
def status(
    run: RunArgument = "",
    of_agents: Annotated[
        bool, typer.Option("--agents", help="Show bids, credits, payments and learnt policies.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run until it ends.")] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show the rounds, participants, losses and digests of a run."""
    folder = state_of(state)
    found = folder.existing(run)
    if watch:
        if as_json or of_agents:
            raise UsageError("expected --watch alone, got --json or --agents beside it")
        return 0 if watching.watch(folder, found, screen()) == "completed" else 1
    if not of_agents:
        result = report.report(folder, found)
        answer(result, report.tables(folder, found, result), as_json=as_json)
        return 1 if result["status"] == "failed" else 0
    simulated = all(member.derived for member in found.genesis.organisations)
    budget = saved(folder, found.name).budget if simulated else None  # elsewhere each node has its own
    rounds, learnt = agents.market(folder, found), agents.learnt(folder, found, budget)
    result = {"run": found.name, "rounds": rounds, "agents": learnt}
    answer(result, agents.tables(learnt, rounds) or ["no agents"], as_json=as_json)
    return 0
