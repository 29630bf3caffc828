"""`foedus chat` on a real run, and on lanes that are served as an ensemble or by routing."""

import io

import pytest

from core.storage.state_folder import State
from tests.commands import World, foedus

pytestmark = pytest.mark.chain


def talk(
    world: World, monkeypatch: pytest.MonkeyPatch, *lines: str, options: tuple[object, ...] = ()
) -> tuple[int, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    done = foedus("chat", "--max-new-tokens", 6, *options, "--state", world.state)
    return done.code, done.out + done.err


def test_a_chat_answers_every_line_until_it_quits(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = talk(finished, monkeypatch, "coding 3?", "", "medical 2?", "/quit", "financial 1?")
    assert code == 0
    assert text.count("; Verdict  ") == 2
    for prompt in ("coding 3?", "medical 2?"):
        answer = finished.command("attribute", "--prompt", prompt, "--max-new-tokens", 6).json["text"]
        assert _whole(answer) in _whole(text)


def _whole(text: str) -> str:
    """The characters that a terminal shows of a random model's answer, wherever its lines break."""
    return "".join(c for c in text if c.isprintable() and not c.isspace() and c != "\ufffd")


def test_a_chat_ends_with_its_input(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = talk(finished, monkeypatch)
    assert code == 0
    assert "Verdict" not in text


@pytest.mark.parametrize("line", ["/method", "/method guess", "/fly", "/", "word " * 200, "caf\udce9"])
def test_a_mistake_in_a_pipe_ends_the_chat(finished: World, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    code, text = talk(finished, monkeypatch, line, "coding 3?")
    assert code == 2
    assert "Verdict" not in text


def test_a_mistake_at_a_terminal_does_not(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["/fly", "coding 3?", "/quit"])
    monkeypatch.setattr("rich.console.Console.input", lambda *_: next(lines))
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})())
    done = foedus("chat", "--max-new-tokens", 6, "--state", finished.state)
    assert done.code == 0, done.err
    assert "/fly" in done.out
    assert "; Verdict  " in done.out


def test_a_chat_with_an_ensemble_refuses_methods_of_one_network(
    composed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = State(composed.state).existing().genesis.composition
    code, text = talk(composed, monkeypatch, "coding 3?", options=("--method", "direct-logit"))
    assert (code, "direct-logit" in text and "ensemble" in text) == ((2, True) if kind == "ensemble" else (0, False))
