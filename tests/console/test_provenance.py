"""`foedus attribute` and `foedus chat` on a real run."""

import io
import json
from pathlib import Path

import pytest

from core.canonical import Address
from core.storage.state_folder import State
from llm.data import encode, encode_prompt, parse_record
from llm.served import serving
from provenance.attribution import METHODS
from provenance.served import trace
from provenance.trace import TokenTrace
from tests.commands import ORGANISATIONS, World, foedus

pytestmark = pytest.mark.chain
QUESTION = ("--prompt", "coding 3?", "--response", "cod 9")


@pytest.mark.parametrize("method", METHODS)
def test_json_has_every_field_that_scripts_rely_on(finished: World, method: str) -> None:
    result = finished.command("attribute", *QUESTION, "--method", method).json
    status = finished.command("status").json
    assert {"run", "aggregate", "method", "tokens", "response", "residual", "seconds"} <= set(result)
    assert result["run"] == status["run"]
    assert result["aggregate"] == status["rounds"][-1]["aggregate"]
    assert result["organisations"] == status["organisations"]
    assert "".join(token["text"] for token in result["tokens"]) == "cod 9"
    for scored in (*result["tokens"], result["response"]):
        assert scored["scores"].keys() == set(ORGANISATIONS)
        assert isinstance(scored["base"], float)
    assert result["response"]["verdict"] in (*ORGANISATIONS, None)
    assert 0 <= result["response"]["confidence"] <= 1
    assert (result["residual"] is None) == (method == "protoken")


def test_the_command_gives_the_trace_of_the_function(finished: World) -> None:
    found = State(finished.state).existing()
    assert finished.command("attribute", *QUESTION).json["digest"] == trace(found, "coding 3?", "cod 9").digest


def test_without_a_response_the_model_answers(finished: World) -> None:
    result = finished.command("attribute", "--prompt", "coding 3?", "--max-new-tokens", 3).json
    assert 1 <= len(result["tokens"]) <= 3


def test_a_prompt_is_an_instruction_with_its_input_below(finished: World) -> None:
    """A record of the training data, asked for as a prompt, gives the very tokens of training."""
    record = parse_record({"instruction": "How many?", "input": "Of 70 mg", "output": "two a day"})
    tokenizer = serving(State(finished.state).existing()).model.tokenizer
    example = encode(tokenizer, record, 10_000)
    prompt, answer = example.tokens[: example.prompt_length], example.tokens[example.prompt_length :]
    assert encode_prompt(tokenizer, "How many?\nOf 70 mg") == prompt
    asked = ("--prompt", "How many?\nOf 70 mg", "--response", "two a day")
    tokens = tuple(token["token"] for token in finished.command("attribute", *asked).json["tokens"])
    assert tokens == answer[: len(tokens)]
    assert len(answer) - len(tokens) <= 1  # what ends the answer was not said


def test_people_get_text_and_a_page(finished: World, tmp_path: Path) -> None:
    done = foedus("attribute", *QUESTION, "--html", tmp_path / "trace.html", "--state", finished.state)
    assert done.code == 0, done.err
    for wanted in ("coding 3?", "cod 9", "base model", "residual", "Verdict  "):
        assert wanted in done.out
    html = (tmp_path / "trace.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert html.count('class="token"') == 5


def test_one_organisation_can_be_looked_at(finished: World, tmp_path: Path) -> None:
    options = ("--organisation", "medical", "--html", tmp_path / "trace.html")
    done = foedus("attribute", *QUESTION, *options, "--state", finished.state)
    assert done.code == 0, done.err
    (checked,) = [
        line for line in (tmp_path / "trace.html").read_text(encoding="utf-8").split("\n") if " checked" in line
    ]
    assert "medical" in checked


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--method", "guess"), "method 'guess': one of gradient"),
        (("--organisation", "hospital"), "organisation 'hospital' is not a member, one of"),
        (("--response", " "), "the response is empty"),
        (("--prompt", ""), "the prompt is empty"),
        (("--prompt", "word " * 200), "the model's context holds 128"),
        (("--max-new-tokens", 0), "Invalid value for '--max-new-tokens'"),
        (("nobody",), "no run 'nobody' in"),
        (("--html", "/nowhere/trace.html"), "/nowhere/trace.html: got no such folder"),
    ],
)
def test_bad_input_is_one_line(finished: World, options: tuple[object, ...], line: str) -> None:
    done = foedus("attribute", *QUESTION, "--state", finished.state, *options)
    assert done.code == 2
    assert line in done.error


def test_a_run_without_contributions_is_told(world: World, finished: World) -> None:
    """A genesis and no round, as a federation leaves that died in its first."""
    found = State(finished.state).existing()
    for name in ("genesis.json", "readers.json"):
        if (found.folder / name).exists():
            (world.state / "runs" / "early").mkdir(parents=True, exist_ok=True)
            (world.state / "runs" / "early" / name).write_bytes((found.folder / name).read_bytes())
    done = foedus("attribute", *QUESTION, "--state", world.state)
    assert done.code == 2
    assert "there are no contributions to attribute to" in done.error


# --- chat ----------------------------------------------------------------------------------------------------------


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
    assert talk(finished, monkeypatch) == (0, "")


def test_a_chat_can_change_the_method(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def noting(trace: TokenTrace, names: dict[Address, str]) -> str:
        used.append(trace.method)
        return ""

    monkeypatch.setattr("console.provenance.summary", noting)
    assert talk(finished, monkeypatch, "coding 3?", "/method gradient", "coding 3?")[0] == 0
    assert used == ["direct-logit", "gradient"]


@pytest.mark.parametrize("line", ["/method", "/method guess", "/fly", "/", "word " * 200])
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
    assert "/fly is no command here" in done.out
    assert "; Verdict  " in done.out


def test_json_is_one_object_even_with_a_page(finished: World, tmp_path: Path) -> None:
    done = finished.command("attribute", *QUESTION, "--html", tmp_path / "t.html")
    assert json.loads(done.out)["html"] == str(tmp_path / "t.html")


# --- evidence ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(finished: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("evidence") / "evidence.json"
    assert finished.command("attribute", *QUESTION, "--evidence", file).json["evidence"] == str(file)
    return file


def test_evidence_holds_without_the_run_and_against_the_chain(finished: World, bundle: Path, tmp_path: Path) -> None:
    traced = finished.command("attribute", *QUESTION).json
    elsewhere = World(finished.base, finished.data, tmp_path / "nothing")
    result = elsewhere.command("evidence", bundle).json
    assert result["ok"]
    assert result["verdict"] == traced["response"]["verdict"]
    assert result["trace"] == traced["digest"]
    assert result["rounds"] == [1, 2]
    anchored = finished.command("evidence", bundle, "--chain", "embedded").json
    assert anchored["transactions"] == [r["transaction"] for r in finished.command("status").json["rounds"]]


def test_evidence_of_something_else_does_not_hold(finished: World, bundle: Path, tmp_path: Path) -> None:
    found = json.loads(bundle.read_bytes())
    found["proofs"][0]["proof"]["manifest"]["value"]["tokens"] += 1
    (tmp_path / "changed.json").write_text(json.dumps(found, separators=(",", ":"), sort_keys=True), encoding="utf-8")
    (tmp_path / "torn.json").write_bytes(bundle.read_bytes()[:-9])
    for name in ("changed.json", "torn.json"):
        done = finished.command("evidence", tmp_path / name)
        assert done.code == 1
        assert not done.json["ok"]
        assert done.json["failures"]


def test_evidence_that_is_not_there_is_wrong_usage(finished: World, tmp_path: Path) -> None:
    done = finished.command("evidence", tmp_path / "gone.json")
    assert done.code == 2
    assert "gone.json: No such file or directory, a file of `foedus attribute --evidence` wanted" in done.error
