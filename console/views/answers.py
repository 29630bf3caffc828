"""A finished run's model, asked a few held-out questions: its own answers, and the organisations that taught them.

Where the console shows colours, each word has its organisation's; elsewhere the organisation's name stands behind the
answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from rich.console import Console, RenderableType
from rich.text import Text

from console.views.heat import Heat, verdict
from console.views.progress import working
from core.canonical import Address
from core.config import RunConfig
from core.errors import UsageError
from core.escape import visible
from core.storage.run_folder import RunFolder
from llm.data import read_data
from llm.records import Collection
from provenance.attribution import attribute
from provenance.served import subject
from provenance.trace import TokenTrace

_ORGANISATIONS = 3
_TOKENS = 48
"""The most tokens of an answer: these are sentences."""


def questions(data: Collection) -> dict[str, str]:
    """The first held-out question of up to three organisations, by the organisation's name."""
    asked = {
        organisation.name: record.prompt[0].content
        for organisation in data.organisations
        for record in reversed(organisation.dev)  # the last that is set is the first record
        if record.asks_alone
    }
    return dict(list(asked.items())[:_ORGANISATIONS])


def answers(config: RunConfig, run: RunFolder, console: Console) -> Iterator[RenderableType]:
    """The model's greedy answers for `console`, each as soon as it is there; the base is loaded once.

    `config` names the data. What cannot be traced is said in the answer's place: the run is finished, and nothing of it
    depends on an answer.
    """
    names = run.genesis.names
    try:
        with working(f"loading the base {run.genesis.base.name}, to ask what it has learned"):
            served = subject(run)
    except UsageError as error:
        yield str(error)
        return
    heading = "\nQuestions that nobody trained on, and the model's own answers"
    heat = Heat(console, tuple(names), names)
    if not heat.coloured:
        yield heading
    else:
        yield f"{heading}; a word has the colour of the organisation that taught it"
        yield Text("   ").join([*heat.legend(), Text("no colour: the base model")])
    for name, question in questions(read_data(config)).items():
        yield ""
        yield Text(visible(f"{name} › {question}"), "dim")
        try:
            with working("answering"):
                trace = attribute(served, question, max_new_tokens=_TOKENS)
        except UsageError as error:
            yield str(error)
            continue
        yield from answer_parts(trace, names, console)


def answer_parts(trace: TokenTrace, names: Mapping[Address, str], console: Console) -> Iterator[RenderableType]:
    """An answer by words, in colours and with the verdict below, or as plain text with the verdict behind it."""
    heat, told = Heat(console, trace.organisations, names), verdict(trace, names)
    if heat.coloured:
        yield heat.response(replace(trace, tokens=trace.words()))
        yield told
    else:
        yield f"{trace.text.strip()} ({told.removeprefix('Verdict').strip()})"
