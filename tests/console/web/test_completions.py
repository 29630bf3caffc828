"""The endpoint as OpenAI's own client sees it."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from console.web import engine
from tests.commands import World
from tests.console.web.served import SECONDS, SIGNER, Served, serving

pytestmark = pytest.mark.chain

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "coding 3?"}], "temperature": 0, "max_tokens": 6}


def test_the_models_are_the_runs(served: Served) -> None:
    with served.client() as client:
        (model,) = client.models.list().data
        assert model.id == served.run
        assert model.owned_by == "foedus"
        assert client.models.retrieve(served.run) == model
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nobody")


def test_an_answer_is_that_of_the_command(served: Served, finished: World) -> None:
    expected = finished.command("attribute", "--prompt", "coding 3?", "--max-new-tokens", 6).json["text"]
    with served.client() as client:
        found = client.chat.completions.create(model=served.run, **ASKED)
    assert found.object == "chat.completion"
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content) == ("assistant", expected)
    assert choice.finish_reason in ("stop", "length")
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert 1 <= found.usage.completion_tokens <= 6
    assert found.model_extra is not None
    assert found.model_extra["foedus"]["trace"] is None


def test_an_answer_with_provenance_has_scores_and_a_receipt_that_holds(
    served: Served, finished: World, tmp_path: Path
) -> None:
    with served.client() as client:
        found = client.chat.completions.create(model=served.run, extra_body={"provenance": True}, **ASKED)
    assert found.model_extra is not None
    extension = found.model_extra["foedus"]
    trace = extension["trace"]
    assert trace["method"] == "direct-logit"
    assert trace["text"] == found.choices[0].message.content
    traced = finished.command("attribute", "--prompt", "coding 3?", "--max-new-tokens", 6, "--method", "direct-logit")
    assert trace["response"]["verdict"] == traced.json["response"]["verdict"]
    for got, want in zip(trace["tokens"], traced.json["tokens"], strict=True):
        assert got["scores"] == pytest.approx(want["scores"], abs=1e-3)
        assert sum(got["shares"].values()) + got["base_share"] <= 1 + 1e-6
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(extension["receipt"], indent=1), encoding="utf-8")
    checked = finished.command("evidence", file, "--signer", SIGNER.address)
    assert (checked.code, checked.json["ok"], checked.json["run"]) == (0, True, served.run)
    assert checked.json["aggregate"] == trace["aggregate"]
    assert checked.json["trace"] == trace["digest"]
    assert checked.json["answer"]["content"] == found.choices[0].message.content
    assert checked.json["request"]["messages"] == ASKED["messages"]
    for signer, named in ((), "--signer ADDRESS"), (("--signer", "0x" + "12" * 20), "0x1212"):
        done = finished.command("evidence", file, *signer)
        assert (done.code, done.json["ok"], done.json["consistent"]) == (1, False, True)
        assert named in done.json["failures"][0]
    assert finished.command("evidence", file, "--signer", "nobody").code == 2
    file.write_text(json.dumps(extension["receipt"]).replace("coding 3?", "coding 4?"), encoding="utf-8")
    done = finished.command("evidence", file, "--signer", SIGNER.address)
    assert (done.code, done.json["consistent"]) == (1, False)


def test_a_stream_spells_the_same_answer_token_by_token(served: Served) -> None:
    with served.client() as client:
        whole = client.chat.completions.create(model=served.run, extra_body={"provenance": True}, **ASKED)
        options = {"include_usage": True}
        stream = client.chat.completions.create(
            model=served.run, stream=True, stream_options=options, extra_body={"provenance": True}, **ASKED
        )
        chunks = list(stream)
    assert whole.model_extra is not None
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    scored = [chunk.model_extra["foedus"]["token"] for chunk in chunks if _extension(chunk, "token")]
    tokens = whole.model_extra["foedus"]["trace"]["tokens"]
    assert [token["token"] for token in scored] == [token["token"] for token in tokens]
    for got, want in zip(scored, tokens, strict=True):
        assert got["scores"] == pytest.approx(want["scores"], abs=1e-4)
    last = chunks[-2]
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert _extension(last, "trace")["digest"]
    assert _extension(last, "receipt")
    assert chunks[-1].usage == whole.usage
    assert not chunks[-1].choices


def _extension(chunk: Any, name: str) -> Any:
    return (chunk.model_extra or {}).get("foedus", {}).get(name)


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, openai.BadRequestError, "messages[0].role"),
        ({"messages": [{"role": "user", "content": " "}]}, openai.BadRequestError, "messages[0].content"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"max_tokens": 10**9}, openai.BadRequestError, "max_tokens"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"top_p": -1}, openai.BadRequestError, "top_p"),
        ({"n": 2}, openai.BadRequestError, "n"),
        ({"logprobs": True}, openai.BadRequestError, "logprobs"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "stop"),
        ({"stop": ""}, openai.BadRequestError, "stop"),
        ({"seed": "one"}, openai.BadRequestError, "seed"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools"),
        ({"extra_body": {"provenance": 3}}, openai.BadRequestError, "provenance"),
        ({"extra_body": {"provenance": "guess"}}, openai.BadRequestError, None),
        ({"extra_body": {"unheard_of": 1}}, openai.BadRequestError, "unheard_of"),
        ({"messages": [{"role": "user", "content": "word " * 400}]}, openai.BadRequestError, None),
    ],
)
def test_what_cannot_be_done_is_refused_as_openai_refuses(
    served: Served, fields: dict[str, Any], error: type[openai.APIStatusError], named: str | None
) -> None:
    for stream in (False, True):
        with served.client() as client, pytest.raises(error) as raised:
            client.chat.completions.create(**({"model": served.run, **ASKED, "stream": stream} | fields))
        body = raised.value.body
        assert isinstance(body, dict)
        assert body["param"] == named
        assert body["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"model":1}', b"[" * 10_000, b'{"a":1,"a":2}']
)
def test_what_is_no_request_is_refused(served: Served, body: bytes) -> None:
    found = served.ask("POST", "/v1/chat/completions", body, content_type="application/json")
    assert found.status == 400
    assert found.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "\ud800"}]}, {"stop": "\ud800"}, {"user": "\ud800"}, {"\ud800": 1},
        {"user": float("nan")}, {"metadata": {"n": float("inf")}},
    ],
)  # fmt: skip
def test_what_no_receipt_could_say_again_is_refused(served: Served, fields: dict[str, Any]) -> None:
    for stream in (False, True):
        found = served.complete(stream=stream, **fields)
        assert (found.status, found.json["error"]["type"]) == (400, "invalid_request_error")
        assert found.json["error"]["message"].startswith("body: ")


def test_an_endpoint_that_is_not_there_is_told_as_openai_tells_it(served: Served) -> None:
    with served.client() as client, pytest.raises(openai.NotFoundError) as raised:
        client.embeddings.create(model=served.run, input="coding 3?")
    assert isinstance(raised.value.body, dict)
    expected = "expected GET /v1/models or POST /v1/chat/completions, got POST '/v1/embeddings'"
    assert raised.value.body["message"] == expected


def test_fields_that_change_nothing_are_taken(served: Served) -> None:
    neutral = {"n": 1, "user": "somebody", "presence_penalty": 0, "response_format": {"type": "text"}, "stop": None}
    assert served.complete(**neutral).status == 200


def test_turns_system_prompts_and_parts_of_content_are_read(served: Served) -> None:
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "coding "}, {"type": "text", "text": "3?"}]},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "And 4?"},
    ]
    found = served.complete(messages=turns, provenance=True)
    assert found.status == 200, found.text
    assert found.json["foedus"]["trace"]["prompt"] == "Be short.\n\ncoding 3?\n\nThree.\n\nAnd 4?"


def test_a_stop_text_ends_an_answer_and_is_not_part_of_it(served: Served) -> None:
    whole = served.complete(max_tokens=12).json["choices"][0]["message"]["content"]
    found = served.complete(max_tokens=12, stop=whole[3:5]).json["choices"][0]
    assert found["message"]["content"] == whole.partition(whole[3:5])[0]
    assert found["finish_reason"] == "stop"


def test_equal_seeds_give_equal_answers(served: Served) -> None:
    drawn = [served.complete(temperature=1.5, seed=seed).json["choices"][0]["message"] for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({message["content"] for message in drawn}) > 1


def test_fifty_requests_at_once_are_answered_as_each_alone(served: Served) -> None:
    prompts = [f"{name} {number}?" for name in ("coding", "financial", "medical") for number in range(4)]

    def content(prompt: str) -> str:
        turns = [{"role": "user", "content": prompt}]
        return str(served.complete(messages=turns).json["choices"][0]["message"]["content"])

    def streamed(number: int) -> str:
        turns = [{"role": "user", "content": prompts[number % len(prompts)]}]
        found = served.complete(messages=turns, stream=True, provenance=number % 2 == 0)
        events = [json.loads(event.removeprefix("data: ")) for event in found.text.strip().split("\n\n")[:-1]]
        return "".join(event["choices"][0]["delta"].get("content", "") for event in events)

    alone = [content(prompt) for prompt in prompts]
    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(streamed, range(50))) == [alone[number % len(prompts)] for number in range(50)]


def test_an_ensemble_and_routing_answer_and_are_traced(composed: World) -> None:
    with serving(composed.state) as server:
        found = server.complete(provenance=True)
        assert found.status == 200, found.text
        expected = composed.command("attribute", "--prompt", "coding 3?", "--max-new-tokens", 6).json
        assert found.json["choices"][0]["message"]["content"] == expected["text"]
        assert found.json["foedus"]["trace"]["response"]["verdict"] in (*expected["organisations"], None)


def test_a_client_that_hangs_up_makes_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"model": served.run, "stream": True, **ASKED, "max_tokens": 100}
    body = json.dumps(asked).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(head.encode() + body)
            assert b"200 OK" in connection.recv(4096)
    end = time.monotonic() + SECONDS
    while served.site.engine.open:
        assert time.monotonic() < end, "a place is still taken"
        time.sleep(0.02)
    assert served.complete().status == 200


def test_more_than_the_server_takes_on_is_told_to_come_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_WAITING", 0)
    with served.client() as client, pytest.raises(openai.RateLimitError, match="try again"):
        client.chat.completions.create(model=served.run, **ASKED)


@pytest.mark.parametrize("step", ["provenance.serving.ServedReply.trace", "console.web.completions.receipt_bundle"])
def test_an_error_in_the_midst_of_a_stream_is_its_last_event(
    served: Served, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(step, fail)
    found = served.complete(stream=True)
    assert found.status == 200
    last = json.loads(found.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["message"] == "the disk is gone"
    with served.client() as client, pytest.raises(openai.APIError, match="the disk is gone"):
        list(client.chat.completions.create(model=served.run, stream=True, **ASKED))
