"""`foedus attribute`: the organisations that taught the tokens of an answer."""

from pathlib import Path
from typing import Annotated

import typer

from console.options import (
    BaseOption,
    JsonOption,
    ReaderKeyOption,
    RunArgument,
    StateOption,
    command_app,
    readable_run,
    state_of,
    writable_file,
)
from console.views import heat
from console.views.progress import working
from console.views.tables import answer, screen

app = command_app()


@app.command(epilog='Example: foedus attribute --prompt "How many tablets?" --html trace.html')
def attribute(  # noqa: PLR0913, PLR0917 - one parameter an option
    prompt: Annotated[str, typer.Option(help="The user's message: an instruction, its input in the lines below.")],
    run: RunArgument = "",
    response: Annotated[str | None, typer.Option(help="The answer to trace; without it the model's own.")] = None,
    method: Annotated[
        str, typer.Option(help="gradient, protoken, direct-logit, ablation, marginal or shapley [marginal].")
    ] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate at most.")] = 64,
    organisation: Annotated[str, typer.Option(help="Colour by this organisation alone.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write a page that shows the trace.")] = None,
    evidence: Annotated[Path | None, typer.Option(help="Write the verdict's proof, for `foedus evidence`.")] = None,
    records: Annotated[Path | None, typer.Option(help="Your records: which of them taught it. They stay here.")] = None,
    base: BaseOption = "",
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trace every token of an answer to the organisations that taught it."""
    from console.views import teaching  # noqa: PLC0415 - torch: seconds that help need not wait
    from provenance.attribution import DEFAULT  # noqa: PLC0415
    from provenance.evidence import Evidence  # noqa: PLC0415
    from provenance.page import page  # noqa: PLC0415
    from provenance.served import trace  # noqa: PLC0415

    named = (("html", html, evidence), ("evidence", evidence, html))
    files = {name: writable_file(path, other, records, key) for name, path, other in named if path is not None}
    found = readable_run(state_of(state), run, key)
    own = teaching.own_records(found, records.expanduser()) if records is not None else ()
    names, only = found.genesis.contributors, found.genesis.named(organisation).address if organisation else None
    with working(f"loading the base {found.genesis.base.name}, answering and tracing the answer"):
        traced = trace(found, prompt, response, method or DEFAULT, max_new_tokens, only, base)
        taught, shown = teaching.by_records(found, traced, own, base) if own else ({}, ())
    if "html" in files:
        files["html"].write_text(page(traced, names, only), encoding="utf-8")
    result = traced.to_dict(names) | {name: str(path) for name, path in files.items()} | taught
    answer(result, (*heat.parts(screen(), traced, names, only), *shown), as_json=as_json)
    if "evidence" in files:
        # Last: of an abstention there is none, and the trace is worth its time.
        files["evidence"].write_bytes(Evidence.of(found, traced).to_bytes())
