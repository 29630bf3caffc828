"""What a finished run's model answers, in colours and without them."""

import io
import re

import pytest
from rich.console import Console

from console.settings import saved
from console.views import answers as view
from console.views.answers import answer_parts, answers, questions
from console.views.tables import show
from core.errors import UsageError
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from llm.records import Collection, Message, OrganisationData, Record
from tests.commands import ORGANISATIONS, World, foedus
from tests.llm.conftest import question
from tests.provenance.traces import names, trace

pytestmark = pytest.mark.chain


def printed(world: World, *, coloured: bool) -> str:
    """What the finished run's model answers."""
    state, out = State(world.state), io.StringIO()
    system = "truecolor" if coloured else None
    console = Console(file=out, force_terminal=coloured, color_system=system, width=100)  # type: ignore[arg-type]
    run = state.existing()
    show(*answers(saved(state, run.name), run, console), on=console)
    return out.getvalue()


def data(*organisations: tuple[str, tuple[Record, ...]]) -> Collection:
    return Collection(tuple(OrganisationData(name, (), dev) for name, dev in organisations), (), ())


def test_the_first_question_of_three_organisations_is_asked() -> None:
    four = data(*((name, (question(f"{name} 1?", "1"), question(f"{name} 2?", "2"))) for name in "abcd"))
    assert questions(four) == {"a": "a 1?", "b": "b 1?", "c": "c 1?"}


def test_what_is_no_question_by_itself_is_not_asked() -> None:
    plain = Record((), "Plain text.")
    later = Record((Message("user", "Hello"), Message("assistant", "Hello."), Message("user", "And?")), "No.")
    assert questions(data(("a", (plain, later)), ("b", (plain, question("b?", "b"))), ("c", ()))) == {"b": "b?"}


def test_on_a_terminal_words_are_coloured_and_the_colours_explained(finished: World) -> None:
    text = printed(finished, coloured=True)
    legend = next(line for line in text.splitlines() if "the base model" in line)
    assert all(f"m■ {name}\x1b[0m" in legend for name in ORGANISATIONS)
    asked = [line.split(" › ")[0] for line in text.splitlines() if " › " in line]
    assert [line.removeprefix("\x1b[2m") for line in asked] == [*ORGANISATIONS]
    assert text.count("Verdict  ") == len(ORGANISATIONS)


def test_a_word_has_one_colour_and_the_verdict_stands_below() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=100)
    show(*answer_parts(trace(), names(), console), on=console)
    *lines, verdict = out.getvalue().splitlines()
    text = "".join(lines)
    assert len(re.findall(r"48;2;\S+m[^\x1b]+", text)) <= len(trace().words()) < len(trace().tokens)
    assert verdict.startswith("Verdict  ")


def test_elsewhere_the_organisation_stands_behind_the_answer(finished: World) -> None:
    text = printed(finished, coloured=False)
    asked = next(line.removeprefix("coding › ") for line in text.splitlines() if line.startswith("coding › "))
    told = finished.command("attribute", "--prompt", asked, "--max-new-tokens", 48).json
    verdict = told["response"]["verdict"] or "none"
    assert "\x1b" not in text
    assert "■" not in text
    assert f" ({verdict}" in text.split(f"coding › {asked}\n")[1].split(" › ")[0]


def test_an_answer_that_cannot_be_traced_ends_nothing(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"coding": "word " * 200, "medical": "medical 2?"}
    monkeypatch.setattr(view, "questions", lambda _: asked)
    text = printed(finished, coloured=False)
    assert "tokens" in text.split(" › ")[1]
    assert text.endswith(")\n")

    def refuse(_: RunFolder) -> None:
        raise UsageError("nothing is served")

    monkeypatch.setattr(view, "subject", refuse)
    assert printed(finished, coloured=False) == "nothing is served\n"


def test_a_run_ends_with_answers_for_people_from_a_base_that_is_loaded_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    real = view.subject
    monkeypatch.setattr(view, "subject", lambda run: loaded.append(run.name) or real(run))
    done = foedus(*(word for word in world.run("--backend", "inline") if word != "--json"))
    assert done.code == 0, done.err
    first, second, *_ = (line for line in done.err.splitlines() if not line.startswith(("Run ", "\x1b")))
    assert (first, second) == (f"loading the base {world.base}", "waiting for the organisations")
    table, _, said = done.out.partition("Questions that nobody trained on")
    assert "completed" in table
    assert [line.split(" › ")[0] for line in said.splitlines() if " › " in line] == list(ORGANISATIONS)
    assert len(loaded) == 1
