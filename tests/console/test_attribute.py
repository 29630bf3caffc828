"""`foedus attribute` on a real run."""

import json
from pathlib import Path

import pytest

from core.storage.state_folder import State
from llm.batches import encode, encode_prompt
from llm.records import parse_record
from llm.served import serving
from provenance.attribution import METHODS
from provenance.served import trace
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
    for part in ("coding 3?", "cod 9", "base model", "residual", "Verdict  "):
        assert part in done.out
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
    ("options", "facts"),
    [
        (("--method", "guess"), ("method", "'guess'", "gradient")),
        (("--organisation", "hospital"), ("'hospital'", "coding", "medical")),
        (("--response", " "), ("response: expected text", "none")),
        (("--prompt", ""), ("prompt", "nothing")),
        (("--prompt", "caf\udce9"), ("prompt: expected Unicode text", "\\udce9 alone")),
        (("--response", "caf\udce9"), ("response: expected Unicode text", "\\udce9 alone")),
        (("--prompt", "word " * 200), ("context", "128")),
        (("--max-new-tokens", 0), ("--max-new-tokens", "0")),
        (("nobody",), ("'nobody'",)),
        (("--html", "/nowhere/trace.html"), ("/nowhere/trace.html", "no such folder")),
        (("--evidence", "/"), ("/", "a folder")),
    ],
)
def test_bad_input_is_one_line(finished: World, options: tuple[object, ...], facts: tuple[str, ...]) -> None:
    done = foedus("attribute", *QUESTION, "--state", finished.state, *options)
    assert done.code == 2
    assert all(fact in done.error for fact in facts), done.error


def test_what_is_written_is_neither_written_twice_nor_read(finished: World, tmp_path: Path) -> None:
    (own := tmp_path / "own").write_text('{"instruction": "a", "output": "b"}\n', encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path)
    for option in (("--records", own), ("--key", own), ("--evidence", tmp_path / "link" / "own")):
        done = foedus("attribute", *QUESTION, "--state", finished.state, "--html", own, *option)
        assert (done.code, done.out) == (2, "")
        assert f"{own}: expected a file of its own to write, got one that another option names" in done.error
    assert own.read_text(encoding="utf-8").startswith("{")


def test_an_abstention_is_shown_and_then_that_it_has_no_evidence(
    finished: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provenance.attribution.judge", lambda *_: (0.5, None))
    out = tmp_path / "evidence.json"
    done = foedus("attribute", *QUESTION, "--evidence", out, "--json", "--state", finished.state)
    assert json.loads(done.out)["response"]["verdict"] is None
    assert (done.code, out.exists()) == (2, False)
    assert done.err.endswith("foedus: the method abstained: there is no verdict to give evidence of\n")


def test_a_run_without_contributions_is_told(world: World, finished: World) -> None:
    """A genesis and no round, as a federation leaves that died in its first."""
    found = State(finished.state).existing()
    for name in ("genesis.json", "readers.json"):
        if (found.folder / name).exists():
            (world.state / "runs" / "early").mkdir(parents=True, exist_ok=True)
            (world.state / "runs" / "early" / name).write_bytes((found.folder / name).read_bytes())
    done = foedus("attribute", *QUESTION, "--state", world.state)
    assert done.code == 2
    assert "contributions" in done.error


def test_json_is_one_object_even_with_a_page(finished: World, tmp_path: Path) -> None:
    done = finished.command("attribute", *QUESTION, "--html", tmp_path / "t.html")
    assert json.loads(done.out)["html"] == str(tmp_path / "t.html")


def test_the_command_names_the_first_records_of_every_token(finished: World) -> None:
    path = finished.data / "coding.jsonl"
    options = ("--prompt", "coding 3?", "--response", "cod 9", "--records", path)
    result = finished.command("attribute", *options).json
    lines = path.read_text(encoding="utf-8").splitlines()
    assert result["records"]["count"] == len(lines)
    assert [token["text"] for token in result["records"]["tokens"]] == [token["text"] for token in result["tokens"]]
    for token in (*result["records"]["tokens"], {"records": result["records"]["response"]}):
        scores = [first["score"] for first in token["records"]]
        assert len(scores) == min(3, len(lines))
        assert scores == sorted(scores, reverse=True)
        assert {first["where"] for first in token["records"]} <= {f"{path}:{n + 1}" for n in range(len(lines))}
    shown = foedus("attribute", *options, "--state", finished.state)
    assert f"The first of your {len(lines)} records for each token" in shown.out


@pytest.mark.parametrize("composed", ["ensemble"], indirect=True)
def test_records_are_refused_for_an_ensemble_before_it_answers(
    composed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provenance.served.trace", None)
    done = foedus("attribute", *QUESTION, "--records", composed.data / "coding.jsonl", "--state", composed.state)
    assert done.code == 2
    assert "--records: expected one adapter that answers, got an ensemble of 3" in done.error


def test_records_that_are_none_are_refused_before_the_model_is_loaded(finished: World, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    for name, got in (("empty.jsonl", "expected records"), ("absent.jsonl", "expected a file")):
        done = foedus("attribute", *QUESTION, "--records", tmp_path / name, "--state", finished.state)
        assert (done.code, done.out) == (2, "")
        assert got in done.err
