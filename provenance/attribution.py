"""Attribution: a prompt, a response and a method become a TokenTrace.

marginal      the default: what is lost without each organisation and gained from it alone, by forward passes
ablation      what is lost without it, in half the passes
gradient      fast whatever their number: first order, own positions for tokens and all paths for the response
direct-logit  while generating: exact sums of direct writes to the residual stream
protoken      the paper's score, to compare with
shapley       audit: complete, adds up to the adapter's whole effect
"""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch

from core.errors import ModelError, UsageError
from llm.batches import Example, GrowingText, encode, encode_prompt, pieces
from llm.determinism import reproducible
from llm.evaluate import generate
from llm.model import Model
from llm.records import Message, Record
from provenance.ablation import ablation, marginal
from provenance.confidence import WEIGHTS, judge, weights_of
from provenance.direct_logit import direct_logit, direct_stream
from provenance.ensemble import EnsembleSubject, mixture_ablation, mixture_gradient, mixture_marginal
from provenance.gradient import gradient
from provenance.method import Effort, Method, Scores, Subject
from provenance.protoken import protoken
from provenance.shapley import shapley
from provenance.trace import ResponseScores, TokenScores, TokenTrace

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("gradient", gradient, mixture_gradient),
            Method("protoken", protoken),
            Method("direct-logit", direct_logit),
            Method("ablation", ablation, mixture_ablation),
            Method("marginal", marginal, mixture_marginal),
            Method("shapley", shapley),
        )
    }
)
DEFAULT = "marginal"
_UNCUT = 2**31
_SILENT = "the model's answer: expected text to attribute, got none"


def attribute(
    subject: Subject | EnsembleSubject,
    prompt: str,
    response: str | None = None,
    method: str = DEFAULT,
    max_new_tokens: int = 64,
    effort: Effort = Effort(),  # noqa: B008 - frozen
) -> TokenTrace:
    """Score every token of `response`, or of the greedy answer when it is None; equal calls give equal scores.

    Raises UsageError for an unknown method, one without a meaning for an ensemble where that is served, an empty
    response, or more tokens than the model's context.
    """
    started = time.perf_counter()
    subject = answering(subject, prompt)
    check_method(method, subject)
    return attribute_answer(
        subject, prompt, _example(subject, prompt, response, max_new_tokens), method, effort, started
    )


def attribute_answer(
    subject: Subject | EnsembleSubject,
    prompt: str,
    example: Example,
    method: str,
    effort: Effort = Effort(),  # noqa: B008 - frozen
    started: float | None = None,
) -> TokenTrace:
    """The trace of the answer of an example, whose prompt reads `prompt`; `started` is when the work began."""
    started = time.perf_counter() if started is None else started
    scores, familiar = scored(subject, example, method, effort)
    return _trace(subject, prompt, example, method, scores, familiar, started)


def scored(
    subject: Subject | EnsembleSubject,
    example: Example,
    method: str,
    effort: Effort = Effort(),  # noqa: B008 - frozen
) -> tuple[Scores, torch.Tensor]:
    """The scores of an example's answer by a method, and the familiarity (K,) of those scored with its text."""
    with reproducible(subject.model.device, 0):
        scores = subject.scores(METHODS[method], example, effort)
        return scores, subject.familiarity(example, scores, effort.chunk)


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
    room = room_for(subject, len(start), max_new_tokens)
    subject.model.set_adapter(subject.adapter)
    chosen: list[int] = []
    parts: list[Scores] = []
    text = GrowingText(subject.model.tokenizer)
    steps = direct_stream(subject, start, room, effort)
    while True:
        # Entered for each step and not around the loop: between two steps the caller's own generators are at work.
        with reproducible(subject.model.device, 0):
            if (step := next(steps, None)) is None:
                break
        chosen.append(step[0])
        parts.append(step[1])
        yield token_scores(step[1], chosen[-1:], [text.add(chosen[-1])])[0]
    if not parts:
        raise UsageError(_SILENT)
    return trace_of_stream(subject, prompt, Example((*start, *chosen), len(start)), parts, started)


def trace_of_stream(
    subject: Subject,
    prompt: str,
    example: Example,
    parts: Sequence[Scores],
    started: float,
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> TokenTrace:
    """The trace of an answer by `direct-logit`, from the scores of each of its tokens.

    `inputs` are those of the modules that familiarity asks for, as far as the text was read while it was generated.
    """
    scores = replace(_concatenated(parts), inputs=inputs)
    with reproducible(subject.model.device, 0):
        familiar = subject.familiarity(example, scores)
    return _trace(subject, prompt, example, "direct-logit", scores, familiar, started)


def answering(subject: Subject | EnsembleSubject, prompt: str) -> Subject | EnsembleSubject:
    """The subject that answers a prompt: where prompts are routed, one of the lanes."""
    return subject.answering(encode_prompt(subject.model.tokenizer, prompt))


def check_method(method: str, subject: Subject | EnsembleSubject | None = None) -> None:
    """Raise UsageError for an unknown method, and for one without a meaning for an ensemble where that answers."""
    mixed = isinstance(subject, EnsembleSubject)
    known = [name for name, one in METHODS.items() if one.score_mixture or not mixed]
    if method not in known:
        why = " as an ensemble answers" if mixed else ""
        raise UsageError(f"method: expected one of {', '.join(known)}{why}, got {method!r}")


def _example(subject: Subject | EnsembleSubject, prompt: str, response: str | None, max_new_tokens: int) -> Example:
    """Prompt and answer as tokens, the answer without the tokens that end it."""
    model = subject.model
    start = encode_prompt(model.tokenizer, prompt)
    if response is None:
        answer = generate(model, subject.adapter, prompt, room_for(subject, len(start), max_new_tokens))
    else:
        answer = encode(model.tokenizer, Record((Message("user", prompt),), response), _UNCUT).tokens[len(start) :]
    example = without_end(model, Example((*start, *answer), len(start)))
    if len(example) == len(start) or (response is not None and not response.strip()):
        got = "special tokens alone" if response and response.strip() else "none"
        raise UsageError(_SILENT if response is None else f"response: expected text to attribute, got {got}")
    # The last token is predicted, never read: it needs no position of its own.
    room_for(subject, len(example) - 1, 1)
    return example


def without_end(model: Model, example: Example) -> Example:
    """The example without the tokens that end its answer: nobody taught them."""
    ends, stop = model.end_tokens | set(model.tokenizer.all_special_ids), len(example)
    while stop > example.prompt_length and example.tokens[stop - 1] in ends:
        stop -= 1
    return Example(example.tokens[:stop], example.prompt_length)


def room_for(subject: Subject | EnsembleSubject, used: int, most: int) -> int:
    """The number of tokens that still fit the context, at most `most`; raises UsageError when it is none."""
    if most < 1:
        raise UsageError(f"max-new-tokens: expected at least 1, got {most}")
    context = subject.model.context_length
    if context is not None and used >= context:
        raise UsageError(f"prompt and response: expected at most {context} tokens, the model's context, got {used + 1}")
    return most if context is None else min(most, context - used)


def _concatenated(parts: Sequence[Scores]) -> Scores:
    """The scores of all tokens of a stream."""
    tokens = torch.cat([part.tokens for part in parts])
    logprobs = torch.cat([part.logprobs for part in parts])
    base = torch.cat([part.base for part in parts])
    explained = torch.cat([part.explained for part in parts if part.explained is not None])
    return Scores(parts[0].organisations, tokens, tokens.sum(0), logprobs, base, explained)


def token_scores(scores: Scores, chosen: Sequence[int], texts: Sequence[str]) -> tuple[TokenScores, ...]:
    """The rows of scores with their tokens and texts; raises ModelError for scores that are no numbers."""
    found = (scores.tokens, scores.response, scores.logprobs, scores.base)
    if not all(torch.isfinite(numbers).all() for numbers in found):
        raise ModelError("expected finite scores, got inf or NaN: the base overflows on this text")
    residuals: list[float | None] = [None] * len(chosen)
    if scores.explained is not None:
        residuals = (scores.explained - scores.base - scores.tokens.sum(1)).tolist()
    numbers = scores.logprobs.tolist(), scores.tokens.tolist(), scores.base.tolist(), residuals
    rows = zip(chosen, texts, *numbers, strict=True)
    return tuple(TokenScores(text, token, logp, tuple(row), base, left) for token, text, logp, row, base, left in rows)


def _trace(
    subject: Subject | EnsembleSubject,
    prompt: str,
    example: Example,
    method: str,
    scores: Scores,
    familiar: torch.Tensor,
    started: float,
) -> TokenTrace:
    """The trace with its response and verdict."""
    answer = example.tokens[example.prompt_length :]
    tokens = token_scores(scores, answer, pieces(subject.model.tokenizer, answer))
    fitted = subject.calibration
    calibrated = fitted is not None and fitted.method == method
    weights = weights_of(fitted) if fitted and calibrated else WEIGHTS[method]
    confidence, organisation = judge(weights, scores.organisations, scores.tokens, scores.response, familiar)
    base = scores.base.sum().item()
    explained = None if scores.explained is None else scores.explained.sum().item()
    residual = None if explained is None else explained - base - scores.response.sum().item()
    whole = tuple(scores.response.tolist()), tuple(familiar.tolist())
    response = ResponseScores(*whole, base, residual, confidence, organisation, calibrated)
    seconds = time.perf_counter() - started
    return TokenTrace(subject.run, subject.aggregate, method, scores.organisations, prompt, tokens, response, seconds)
