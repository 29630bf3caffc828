"""`foedus attribute` and `foedus chat`: who taught the tokens of an answer."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from console.options import JsonOption, KeyOption, RunArgument, StateOption, print_json, run_of, state_of
from console.views.heat import Heat, show, summary
from core.canonical import Address
from core.errors import UsageError

if TYPE_CHECKING:
    from provenance.ensemble import EnsembleSubject
    from provenance.method import Subject
    from provenance.trace import TokenTrace

_HELP = "/method NAME chooses the method, /quit ends; every line is a question of its own"

MethodOption = Annotated[str, typer.Option(help="gradient, protoken, direct-logit, ablation or shapley.")]
LengthOption = Annotated[int, typer.Option(min=1, help="Tokens to generate at most.")]


def attribute(  # noqa: PLR0913, PLR0917 - one parameter an option
    prompt: Annotated[str, typer.Option(help="What the user says: an instruction, its input in the lines below.")],
    run: RunArgument = "",
    response: Annotated[str | None, typer.Option(help="The answer to trace; without it the model's own.")] = None,
    method: MethodOption = "gradient",
    max_new_tokens: LengthOption = 64,
    organisation: Annotated[str, typer.Option(help="Colour by this organisation alone.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write a page that shows the trace.")] = None,
    evidence: Annotated[Path | None, typer.Option(help="Write what proves the verdict: see foedus evidence.")] = None,
    key: KeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trace every token of an answer to the organisations that taught it."""
    from provenance.served import trace  # noqa: PLC0415 - seconds of imports that other commands need not wait for

    files = {name: _writable(path) for name, path in (("html", html), ("evidence", evidence)) if path is not None}
    found = run_of(state_of(state), run, key)
    names = found.genesis.names
    only = found.genesis.named(organisation).address if organisation else None
    traced = trace(found, prompt, response, method, max_new_tokens, only)
    if "html" in files:
        from provenance.page import page  # noqa: PLC0415

        files["html"].write_text(page(traced, names, only), encoding="utf-8")
    if "evidence" in files:
        from provenance.evidence import Evidence  # noqa: PLC0415

        files["evidence"].write_bytes(Evidence.of(found, traced).to_bytes())
    if as_json:
        print_json(traced.to_dict(names) | {name: str(path) for name, path in files.items()})
    else:
        show(Console(), traced, names, only)


def _writable(path: Path) -> Path:
    """The absolute path of a file to write; raises UsageError, before anything is computed, when it cannot be one."""
    path = path.expanduser().absolute()
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"{path}: got {'a folder' if path.is_dir() else 'no such folder'}, a file to write wanted")
    return path


def chat(
    run: RunArgument = "",
    method: Annotated[
        str, typer.Option(help="As for attribute [direct-logit, while generating; gradient for an ensemble].")
    ] = "",
    max_new_tokens: LengthOption = 256,
    key: KeyOption = None,
    state: StateOption = None,
) -> None:
    """Talk to the model; every token comes in the colour of the organisation that taught it."""
    from provenance.attribution import check_method  # noqa: PLC0415 - seconds of imports
    from provenance.served import subject  # noqa: PLC0415

    found = run_of(state_of(state), run, key)
    method = method or ("gradient" if found.genesis.composition == "ensemble" else "direct-logit")
    check_method(method)
    Chat(Console(highlight=False), subject(found), found.genesis.names, method, max_new_tokens).talk(sys.stdin.isatty())


class Chat:
    """A conversation: questions from stdin, answers on the console."""

    def __init__(
        self,
        console: Console,
        asked: "Subject | EnsembleSubject",
        names: Mapping[Address, str],
        method: str,
        max_new_tokens: int,
    ) -> None:
        self.console, self.subject, self.names = console, asked, names
        self.method, self.max_new_tokens = method, max_new_tokens

    def talk(self, interactive: bool) -> None:
        """Answer until /quit or the end of the input; a mistake ends it only where nobody is there to mend it."""
        if interactive:
            self.console.print(f"Run {self.subject.run}, coloured by {self.method}. {_HELP}.", style="dim")
        for line in self._lines(interactive):
            try:
                self.answer(line)
            except UsageError as error:
                if not interactive:
                    raise
                self.console.print(str(error), style="red", markup=False)

    def answer(self, line: str) -> None:
        """Answer a question, or do what a line that begins with a slash says."""
        if line.startswith("/"):
            self._command(*line[1:].split(maxsplit=1))
            return
        from provenance.attribution import answering  # noqa: PLC0415
        from provenance.attribution import attribute as traced  # noqa: PLC0415
        from provenance.method import Subject  # noqa: PLC0415

        asked = answering(self.subject, line)
        trace = self._stream(asked, line) if isinstance(asked, Subject) else None
        if trace is None or self.method != trace.method:
            trace = traced(asked, line, None, self.method, self.max_new_tokens)
            heat = Heat(self.console, trace.organisations, self.names)
            self.console.print(heat.response(trace), soft_wrap=True)
        self.console.print(summary(trace, self.names), style="dim", markup=False, soft_wrap=True)

    def _stream(self, asked: "Subject", prompt: str) -> "TokenTrace":
        from provenance.attribution import stream  # noqa: PLC0415

        heat = Heat(self.console, asked.organisations, self.names)
        steps = stream(asked, prompt, self.max_new_tokens)
        while True:
            try:
                token = next(steps)
            except StopIteration as end:
                self.console.print()
                trace: TokenTrace = end.value
                return trace
            self.console.print(heat.token(token), end="", soft_wrap=True)

    def _command(self, name: str = "", value: str = "") -> None:
        from provenance.attribution import check_method  # noqa: PLC0415

        if name != "method" or not value:
            raise UsageError(f"/{name} {value}".rstrip() + f" is no command here: {_HELP}")
        check_method(value)
        self.method = value

    def _lines(self, interactive: bool) -> Iterator[str]:
        """The questions and commands, to the end of the input or /quit."""
        while True:
            try:
                line = (self.console.input("› ") if interactive else input()).strip()
            except EOFError:
                return
            if line == "/quit":
                return
            if line:
                yield line
