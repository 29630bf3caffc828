"""The way in: a prompt, a response and a method become a TokenTrace.

gradient      the default: fast, first order, own positions for tokens and all paths for the response
direct-logit  while generating: exact sums of what was written directly
protoken      the paper's score, to compare with
ablation      audit: what is lost without each organisation
shapley       audit: complete, adds up to what the adapter did
"""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import MappingProxyType

import torch

from core.canonical import Address
from core.errors import UsageError
from llm.batches import Example, encode, encode_prompt, pieces
from llm.determinism import reproducible
from llm.evaluate import generate
from llm.records import Message, Record
from provenance.ablation import ablation
from provenance.confidence import probabilities, verdict
from provenance.direct_logit import direct_logit, direct_stream
from provenance.ensemble import EnsembleSubject, mixed, mixed_familiarity
from provenance.familiarity import familiarity
from provenance.gradient import gradient
from provenance.method import Effort, Method, Scores, Subject
from provenance.protoken import protoken
from provenance.shapley import shapley
from provenance.trace import ResponseScores, TokenScores, TokenTrace

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "gradient": gradient,
        "protoken": protoken,
        "direct-logit": direct_logit,
        "ablation": ablation,
        "shapley": shapley,
    }
)
DEFAULT = "gradient"
_UNCUT = 2**31


def attribute(
    subject: Subject | EnsembleSubject,
    prompt: str,
    response: str | None = None,
    method: str = DEFAULT,
    max_new_tokens: int = 64,
    effort: Effort = Effort(),  # noqa: B008 - frozen
) -> TokenTrace:
    """Score every token of `response`, or of the greedy answer when it is None; equal calls give equal scores.

    Raises UsageError for an unknown method, one that says nothing of an ensemble where that is served, an empty
    response, or more tokens than the model's context.
    """
    started = time.perf_counter()
    check_method(method)
    subject = answering(subject, prompt)
    example = _example(subject, prompt, response, max_new_tokens)
    with reproducible(subject.model.device, 0):
        scores = _scored(subject, example, method, effort)
        familiar = _familiar(subject, example, scores.organisations, effort.chunk)
    answer = example.tokens[example.prompt_length :]
    tokens = _tokens(scores, answer, pieces(subject.model.tokenizer, answer))
    return _trace(subject, prompt, method, scores, familiar, tokens, started)


def stream(
    subject: Subject | EnsembleSubject,
    prompt: str,
    max_new_tokens: int = 64,
    effort: Effort = Effort(),  # noqa: B008 - frozen
) -> Generator[TokenScores, None, TokenTrace]:
    """Generate greedily and yield each token with its `direct-logit` scores; returns the trace of all of them.

    Raises UsageError for a prompt longer than the model's context, an answer without a token, or an ensemble.
    """
    started = time.perf_counter()
    subject = answering(subject, prompt)
    if isinstance(subject, EnsembleSubject):
        raise UsageError("an ensemble's tokens cannot be attributed while it generates, only its whole answer")
    start = encode_prompt(subject.model.tokenizer, prompt)
    room = _room(subject, len(start), max_new_tokens)
    subject.model.set_adapter(subject.adapter)
    chosen: list[int] = []
    parts: list[Scores] = []
    steps = direct_stream(subject, start, room, effort)
    while (found := _next(subject, steps)) is not None:
        chosen.append(found[0])
        parts.append(found[1])
        text = pieces(subject.model.tokenizer, chosen)[-1]
        yield _tokens(found[1], chosen[-1:], ["" if text.endswith("\ufffd") else text])[0]
    if not parts:
        raise UsageError("the model's answer is empty: there is no token to attribute")
    scores = _joined(parts)
    tokens = _tokens(scores, chosen, pieces(subject.model.tokenizer, chosen))
    with reproducible(subject.model.device, 0):
        familiar = familiarity(subject, Example((*start, *chosen), len(start)), scores.organisations, effort.chunk)
    return _trace(subject, prompt, "direct-logit", scores, familiar, tokens, started)


def answering(subject: Subject | EnsembleSubject, prompt: str) -> Subject | EnsembleSubject:
    """What answers a prompt: of lanes that it is routed to, one."""
    if isinstance(subject, Subject):
        return subject
    return subject.answering(encode_prompt(subject.model.tokenizer, prompt))


def check_method(method: str) -> None:
    """Raise UsageError for a method that there is not."""
    if method not in METHODS:
        raise UsageError(f"method {method!r}: one of {', '.join(METHODS)} wanted")


def _scored(subject: Subject | EnsembleSubject, example: Example, method: str, effort: Effort) -> Scores:
    if isinstance(subject, EnsembleSubject):
        return mixed(subject, example, method, effort)
    subject.model.set_adapter(subject.adapter)
    return METHODS[method](subject, example, effort)


def _familiar(
    subject: Subject | EnsembleSubject, example: Example, organisations: Sequence[Address], size: int | None
) -> torch.Tensor:
    if isinstance(subject, EnsembleSubject):
        return mixed_familiarity(subject, example, size)
    return familiarity(subject, example, organisations, size)


def _example(subject: Subject | EnsembleSubject, prompt: str, response: str | None, max_new_tokens: int) -> Example:
    """Prompt and answer as tokens, the answer without the tokens that end it."""
    model = subject.model
    start = encode_prompt(model.tokenizer, prompt)
    if response is None:
        answer = generate(model, subject.adapter, prompt, _room(subject, len(start), max_new_tokens))
    else:
        answer = encode(model.tokenizer, Record((Message("user", prompt),), response), _UNCUT).tokens[len(start) :]
    ends = model.end_tokens | set(model.tokenizer.all_special_ids)
    while answer and answer[-1] in ends:
        answer = answer[:-1]
    if not answer or (response is not None and not response.strip()):
        raise UsageError(
            f"the {'answer of the model' if response is None else 'response'} is empty: nothing to attribute"
        )
    _room(subject, len(start) + len(answer) - 1, 1)
    return Example((*start, *answer), len(start))


def _room(subject: Subject | EnsembleSubject, used: int, wanted: int) -> int:
    """How many more tokens fit the context, at most `wanted`; raises UsageError when it is none."""
    if wanted < 1:
        raise UsageError(f"max-new-tokens is {wanted}, at least 1 wanted")
    most = subject.model.context_length
    if most is not None and used >= most:
        raise UsageError(f"prompt and response have {used + 1} tokens or more, the model's context holds {most}")
    return wanted if most is None else min(wanted, most - used)


def _next(subject: Subject, steps: Iterator[tuple[int, Scores]]) -> tuple[int, Scores] | None:
    with reproducible(subject.model.device, 0):
        return next(steps, None)


def _joined(parts: Sequence[Scores]) -> Scores:
    """The scores of all tokens of the steps of a stream."""
    tokens = torch.cat([part.tokens for part in parts])
    logprobs = torch.cat([part.logprobs for part in parts])
    base = torch.cat([part.base for part in parts])
    explained = torch.cat([part.explained for part in parts if part.explained is not None])
    return Scores(parts[0].organisations, tokens, tokens.sum(0), logprobs, base, explained)


def _tokens(scores: Scores, chosen: Sequence[int], texts: Sequence[str]) -> tuple[TokenScores, ...]:
    numbers = scores.logprobs.tolist(), scores.tokens.tolist(), scores.base.tolist(), _residuals(scores)
    rows = zip(chosen, texts, *numbers, strict=True)
    return tuple(TokenScores(text, token, logp, tuple(row), b, left) for token, text, logp, row, b, left in rows)


def _residuals(scores: Scores) -> list[float | None]:
    if scores.explained is None:
        return [None] * len(scores.tokens)
    left: list[float | None] = (scores.explained - scores.base - scores.tokens.sum(1)).tolist()
    return left


def _trace(
    subject: Subject | EnsembleSubject,
    prompt: str,
    method: str,
    scores: Scores,
    familiar: torch.Tensor,
    tokens: tuple[TokenScores, ...],
    started: float,
) -> TokenTrace:
    chances = probabilities(method, scores.tokens, scores.response, familiar)
    confidence, who = verdict(scores.organisations, chances)
    base = scores.base.sum().item()
    explained = None if scores.explained is None else scores.explained.sum().item()
    residual = None if explained is None else explained - base - scores.response.sum().item()
    whole = tuple(scores.response.tolist()), tuple(familiar.tolist())
    response = ResponseScores(*whole, base, residual, confidence, who)
    seconds = time.perf_counter() - started
    return TokenTrace(subject.run, subject.aggregate, method, scores.organisations, prompt, tokens, response, seconds)
