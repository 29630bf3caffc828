"""`foedus chat`: a conversation in which every token has the colour of the organisation that taught it."""

import sys
from typing import Annotated

import typer

from console.options import BaseOption, ReaderKeyOption, RunArgument, StateOption, command_app, readable_run, state_of
from console.views.progress import working
from console.views.tables import screen

app = command_app()


@app.command(epilog="Example: foedus chat --method direct-logit")
def chat(
    run: RunArgument = "",
    method: Annotated[
        str, typer.Option(help="As for attribute [direct-logit, while generating; marginal for an ensemble].")
    ] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate at most.")] = 256,
    base: BaseOption = "",
    key: ReaderKeyOption = None,
    state: StateOption = None,
) -> None:
    """Talk to the model; every token has the colour of the organisation that taught it."""
    from console.views.conversation import Chat  # noqa: PLC0415 - torch: seconds that help need not wait
    from provenance.attribution import DEFAULT, check_method  # noqa: PLC0415
    from provenance.served import subject  # noqa: PLC0415

    found = readable_run(state_of(state), run, key)
    method = method or (DEFAULT if found.genesis.composition == "ensemble" else "direct-logit")
    check_method(method)
    with working(f"loading the base {found.genesis.base.name}"):
        served = subject(found, base)
    Chat(screen(), served, found.genesis.contributors, method, max_new_tokens).talk(interactive=sys.stdin.isatty())
