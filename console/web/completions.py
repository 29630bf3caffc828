"""`/v1/models` and `/v1/chat/completions` as OpenAI answers them, with an extension of our own.

A model is a run. A request may have `"provenance": true`, or the name of a method: then every chunk of a stream has its
token's scores in the field `foedus`, and the last one, as an answer in one piece, the whole trace and a receipt
(core/answers.py). A receipt comes with every answer. What this server cannot do is refused, never ignored.
"""

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from console.web.chat_request import ChatRequest, RequestError
from console.web.engine import BusyError, Engine, Finished, Piece
from console.web.security import TooLargeError, read_json, while_connected
from core.answers import receipt_bundle
from core.canonical import ZERO_DIGEST, Address
from core.errors import FoedusError, ModelError, UsageError
from core.escape import redacted
from core.signed import SigningKey
from core.storage.run_folder import RunFolder
from provenance.shares import response_shares, token_shares
from provenance.trace import TokenScores, TokenTrace

Json = dict[str, Any]

_MOST_TRACES = 64


@dataclass(frozen=True)
class Completions:
    """The endpoint: `runs` are those that are served, `key` signs receipts."""

    engine: Engine
    runs: Callable[[], Mapping[str, float]]
    """Run ids, the newest last, and when each began, in seconds since the epoch."""
    key: SigningKey
    traces: "OrderedDict[str, tuple[RunFolder, TokenTrace]]" = field(default_factory=OrderedDict)
    """The last traces by their digest, so that their evidence can be had."""

    async def models(self, _request: Request) -> Response:
        """The runs, as models."""
        return JSONResponse({"object": "list", "data": [_model(*item) for item in self.runs().items()]})

    async def model(self, request: Request) -> Response:
        """One run."""
        name = request.path_params["model"]
        if name not in (runs := self.runs()):
            return _unknown_model(name, runs)
        return JSONResponse(_model(name, runs[name]))

    async def create(self, request: Request) -> Response:
        """Answer a chat; raises nothing that is not told in OpenAI's shape."""
        try:
            asked = ChatRequest.of(await read_json(request))
            if asked.run not in (runs := self.runs()):
                return _unknown_model(asked.run, runs)
            events = self.engine.answer(asked.run, asked.question)
            # What is refused is refused before a stream has begun.
            first = await while_connected(request, anext(events))
        except (FoedusError, OSError) as error:
            return refused(error)
        frame = _Frame(asked, self.key, self._keep)
        if asked.stream:
            return StreamingResponse(frame.stream(first, events), media_type="text/event-stream")
        try:
            return JSONResponse(await while_connected(request, frame.whole(first, events)))
        except (FoedusError, OSError) as error:
            return refused(error)
        finally:
            await events.aclose()

    def _keep(self, run: RunFolder, trace: TokenTrace) -> None:
        self.traces[trace.digest] = run, trace
        self.traces.move_to_end(trace.digest)
        while len(self.traces) > _MOST_TRACES:
            self.traces.popitem(last=False)


class _Frame:
    """An answer in OpenAI's shape."""

    def __init__(self, asked: ChatRequest, key: SigningKey, keep: Callable[[RunFolder, TokenTrace], None]) -> None:
        self.asked, self.key, self.keep = asked, key, keep
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    async def whole(self, first: Piece | Finished, events: AsyncGenerator[Piece | Finished, None]) -> Json:
        """In one piece."""
        end = first
        while isinstance(end, Piece):
            end = await anext(events)
        message = {"role": "assistant", "content": end.reply.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.reply.finished}
        return self._body("chat.completion", [choice]) | {"usage": _usage(end), "foedus": self._foedus(end)}

    async def stream(
        self, first: Piece | Finished, events: AsyncGenerator[Piece | Finished, None]
    ) -> AsyncGenerator[bytes, None]:
        """As server-sent events, a chunk for each token."""
        yield self._chunk({"role": "assistant", "content": ""})
        event = first
        try:
            while isinstance(event, Piece):
                foedus = {"token": _token(event)} if event.scores else None
                yield self._chunk({"content": event.text}, foedus=foedus)
                event = await anext(events)
            whole = self._foedus(event)
        except (FoedusError, OSError) as error:
            # The status is sent already: the error is the stream's last event.
            yield _event(error_body(error)[1])
            return
        yield self._chunk({}, finish=event.reply.finished, foedus=whole)
        if self.asked.usage:
            yield _event(self._body("chat.completion.chunk", []) | {"usage": _usage(event)})
        yield b"data: [DONE]\n\n"

    def _foedus(self, end: Finished) -> Json:
        """The extension of a whole answer: its trace, where one was asked for, and its receipt."""
        genesis, trace, reply = end.run.genesis, end.trace, end.reply
        answer = {"content": reply.text, "finish_reason": reply.finished, "tokens": list(reply.answer.tokens)}
        digest = trace.digest if trace else ZERO_DIGEST
        if trace:
            self.keep(end.run, trace)
        receipt = receipt_bundle(genesis, self.key, reply.subject.aggregate, digest, self.asked.plain, answer)
        return {"trace": _with_shares(trace, genesis.contributors) if trace else None, "receipt": receipt}

    def _chunk(self, delta: Json, finish: str | None = None, foedus: Json | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        more = {"foedus": foedus} if foedus else {}
        return _event(self._body("chat.completion.chunk", [choice]) | more)

    def _body(self, kind: str, choices: list[Json]) -> Json:
        model = self.asked.run
        return {"id": self.id, "object": kind, "created": self.created, "model": model, "choices": choices}


def refused(error: Exception) -> Response:
    """An error as OpenAI's clients read it."""
    status, body = error_body(error)
    return JSONResponse(body, status)


def error_body(error: Exception) -> tuple[int, Json]:
    """Status and body of an error."""
    message = redacted(str(error))
    if isinstance(error, BusyError):
        return 429, _error(message, "rate_limit_error", None, "busy")
    if isinstance(error, RequestError):
        return 400, _error(message, "invalid_request_error", error.name, None)
    if isinstance(error, TooLargeError):
        return 413, _error(message, "invalid_request_error", None, None)
    # A base that is not here is the server's fault, a prompt that is too long is not.
    if isinstance(error, UsageError) and not isinstance(error, ModelError):
        return 400, _error(message, "invalid_request_error", None, None)
    return 503, _error(message, "server_error", None, None)


def _error(message: str, kind: str, field: str | None, code: str | None) -> Json:
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


def _unknown_model(name: str, runs: Mapping[str, float]) -> Response:
    message = f"model: expected one of the runs {', '.join(runs) or 'none'}, got {name!r:.80}"
    return JSONResponse(_error(message, "invalid_request_error", "model", "model_not_found"), 404)


def missing_endpoint(request: Request, status: int) -> Response:
    """The answer where OpenAI has an endpoint and this server none (404), or none for such a request (405)."""
    path, code = f"{request.url.path!r:.80}", "unknown_url" if status == 404 else "method_not_supported"
    message = f"expected GET /v1/models or POST /v1/chat/completions, got {request.method} {path}"
    return JSONResponse(_error(message, "invalid_request_error", None, code), status)


def _model(name: str, began: float) -> Json:
    return {"id": name, "object": "model", "created": int(began), "owned_by": "foedus"}


def _token(piece: Piece) -> Json:
    """One token with its scores and shares, organisations by name, as in a trace."""
    scores, names = piece.scores, [piece.run.genesis.contributors[o] for o in piece.reply.subject.organisations]
    if scores is None:
        return {}
    plain = {name: getattr(scores, name) for name in ("text", "token", "logprob", "base", "residual")}
    return plain | {"scores": dict(zip(names, scores.scores, strict=True)), **_shares(scores, names)}


def _with_shares(trace: TokenTrace, names: Mapping[Address, str]) -> Json:
    """A trace as `foedus attribute --json` has it, each token with its shares."""
    plain, ordered = trace.to_dict(names), [names[o] for o in trace.organisations]
    tokens = [token | _shares(scores, ordered) for token, scores in zip(plain["tokens"], trace.tokens, strict=True)]
    shares = response_shares(trace)
    whole = {"shares": dict(zip(ordered, shares.organisations, strict=True)), "base_share": shares.base}
    return plain | {"tokens": tokens, "response": plain["response"] | whole}


def _shares(scores: TokenScores, names: list[str]) -> Json:
    shares = token_shares(scores)
    return {"shares": dict(zip(names, shares.organisations, strict=True)), "base_share": shares.base}


def _usage(end: Finished) -> Json:
    asked, said = len(end.reply.answer.prompt), len(end.reply.answer.tokens)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _event(body: Json) -> bytes:
    return f"data: {json.dumps(body, allow_nan=False)}\n\n".encode()
