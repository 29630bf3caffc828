"""A conversation on a terminal, answer by answer, each token in the colour of the organisation that taught it."""

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.text import Text

from console.views.heat import Heat, summary
from core.canonical import Address
from core.errors import UsageError
from core.escape import visible
from provenance.attribution import answering, attribute, check_method, stream
from provenance.ensemble import EnsembleSubject
from provenance.method import Subject
from provenance.trace import TokenTrace

_HELP = "/method NAME chooses the method, /quit ends; every line is a question of its own"


class Chat:
    """A conversation: questions from stdin, answers on the console."""

    def __init__(
        self,
        console: Console,
        served: Subject | EnsembleSubject,
        names: Mapping[Address, str],
        method: str,
        max_new_tokens: int,
    ) -> None:
        self.console, self.served, self.names = console, served, names
        self.method, self.max_new_tokens = method, max_new_tokens

    def talk(self, *, interactive: bool) -> None:
        """Answer until /quit or the end of the input; a mistake ends it only where nobody is there to mend it."""
        if interactive:
            self._note(f"Run {self.served.run}, coloured by {self.method}. {_HELP}.", "dim")
        for line in self._lines(interactive):
            try:
                self.answer(line)
            except UsageError as error:
                if not interactive:
                    raise
                self._note(str(error), "red")

    def answer(self, line: str) -> None:
        """Answer a question, or obey a line that begins with a slash; raises UsageError."""
        if line.startswith("/"):
            command, _, method = line[1:].partition(" ")
            if command != "method" or not method.strip():
                raise UsageError(f"expected a command, got {line!r}: {_HELP}")
            check_method(method.strip())
            self.method = method.strip()
            return
        asked = answering(self.served, line)
        trace = self._stream(asked, line) if isinstance(asked, Subject) else None
        if trace is None or self.method != trace.method:
            trace = attribute(asked, line, None, self.method, self.max_new_tokens)
            heat = Heat(self.console, trace.organisations, self.names)
            self.console.print(heat.response(trace), soft_wrap=True)
        self._note(summary(trace, self.names), "dim")

    def _stream(self, asked: Subject, prompt: str) -> TokenTrace:
        """Generate, printing every token as soon as its scores are known."""
        heat = Heat(self.console, asked.organisations, self.names)
        steps = stream(asked, prompt, self.max_new_tokens)
        while True:
            try:
                token = next(steps)
            except StopIteration as end:  # a generator's return value, which a for loop would drop
                self.console.print()
                trace: TokenTrace = end.value
                return trace
            self.console.print(heat.token(token), end="", soft_wrap=True)

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

    def _note(self, text: str, style: str) -> None:
        self.console.print(Text(visible(text), style), soft_wrap=True)
