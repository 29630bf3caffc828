"""Answers of a served model with their scores: from turns to tokens, and in the end to a TokenTrace.

With `direct-logit` every token has its scores as it is generated; the other methods look at the whole answer once it is
there. Which of several lanes answers is decided by the last turns of the prompt, as everywhere.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from core.composition import Composition
from llm.batches import Example, GrowingText, encode_turns
from llm.decoding import Answer, Decoder, Factors, Sampling, Step, factors_of
from llm.model import Model
from llm.records import Message
from llm.residual_stream import residual_stream
from provenance.attribution import (
    DEFAULT,
    attribute_answer,
    check_method,
    room_for,
    token_scores,
    trace_of_stream,
    without_end,
)
from provenance.direct_logit import scores_of
from provenance.ensemble import EnsembleSubject
from provenance.method import Effort, Scores, Subject
from provenance.trace import TokenScores, TokenTrace

STREAMED = "direct-logit"
"""The method whose scores come with the tokens."""
GREEDY = Sampling()
ANY_METHOD = "default"
"""Stands for the method of a trace that suits what is served."""
_EFFORT = Effort()


@dataclass(frozen=True)
class Question:
    """Turns to answer in at most `most` tokens, up to the first of the `stop` texts; `method` "" traces nothing."""

    turns: tuple[Message, ...]
    most: int
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()
    method: str = ""

    @property
    def text(self) -> str:
        """The prompt of a trace: the only turn, or all of them, an empty line between two."""
        return "\n\n".join(turn.content for turn in self.turns)


class ServedSubject:
    """A run's served model with the factors of its adapters, which are made once."""

    def __init__(self, subject: Subject | EnsembleSubject) -> None:
        """Factors take memory for each lane; they are those of the states that `subject` serves."""
        self.subject = subject
        lanes = (subject,) if isinstance(subject, Subject) else subject.lanes
        self._factors: Mapping[Subject, tuple[tuple[float, Factors], ...]] = {
            lane: factors_of(subject.model, Composition.of(lane.adapter)) for lane in lanes
        }

    @property
    def model(self) -> Model:
        """The base model."""
        return self.subject.model

    def factors(self, answering: Subject | EnsembleSubject) -> tuple[tuple[float, Factors], ...]:
        """Share and factors of each adapter that answers."""
        if isinstance(answering, Subject):
            return self._factors[answering]
        shares = (part.share for part in answering.adapter.parts)
        return tuple((share, self._factors[lane][0][1]) for share, lane in zip(shares, answering.lanes, strict=True))


@dataclass(eq=False)
class ServedReply:
    """The answer to a question, as far as it goes: `text` is what may be shown of it.

    What could still become a stop text is held back until it is known to be none.
    """

    question: Question
    subject: Subject | EnsembleSubject
    answer: Answer
    method: str
    started: float
    text: str = ""
    finished: str = ""
    """Why it has ended: stop or length."""
    _raw: str = ""
    _parts: list[Scores] = field(default_factory=list)
    _inputs: list[Mapping[str, torch.Tensor]] = field(default_factory=list)
    _growing: GrowingText = field(init=False)

    def __post_init__(self) -> None:
        """No token yet."""
        self._growing = GrowingText(self.subject.model.tokenizer)

    @classmethod
    def to(cls, question: Question, served: ServedSubject) -> "ServedReply":
        """The reply to a question, by the lane that it is routed to.

        Raises UsageError for a method without a meaning for what is served, or a prompt beyond the context; DataError
        for turns that the chat template refuses.
        """
        started = time.perf_counter()
        prompt = encode_turns(served.model.tokenizer, question.turns)
        subject = served.subject.answering(prompt)
        method = question.method
        if method == ANY_METHOD:
            method = DEFAULT if isinstance(subject, EnsembleSubject) else STREAMED
        if method:
            check_method(method, subject)
        watched = method == STREAMED
        if watched:
            residual_stream(served.model)  # a decoder that cannot be attributed is refused before it answers
        most = room_for(subject, len(prompt), question.most)
        answer = Answer(prompt, served.factors(subject), question.sampling, most, watched)
        return cls(question, subject, answer, method, started)

    def take(self, step: Step) -> tuple[str, TokenScores | None]:
        """What a step adds to the text that may be shown, and its token's scores where they are asked for."""
        scores = None
        self._inputs += [step.inputs] if step.inputs else []
        if step.token is not None:
            piece = self._growing.add(step.token)
            self._raw += piece
            if step.writes is not None and isinstance(self.subject, Subject):
                chosen = step.logits.new_tensor([step.token]).long()
                self._parts.append(scores_of(self.subject, step.writes, step.logits, chosen, _EFFORT))
                scores = token_scores(self._parts[-1], [step.token], [piece])[0]
        if step.ended:
            self._raw += self._growing.rest()
            self.finished = "stop" if step.token is None else "length"
        shown = self._showable()
        added, self.text = shown[len(self.text) :], shown
        return added, scores

    def trace(self) -> TokenTrace | None:
        """The trace of the whole answer; None where none was asked for, or nothing was said."""
        prompt = self.answer.prompt
        example = Example((*prompt, *self.answer.tokens), len(prompt))
        if self._parts and isinstance(self.subject, Subject):
            # All that was read has passed already: familiarity needs no pass of its own.
            inputs = {name: torch.cat([step[name] for step in self._inputs]) for name in self._inputs[0]}
            return trace_of_stream(self.subject, self.question.text, example, self._parts, self.started, inputs)
        example = without_end(self.subject.model, example)
        if not self.method or len(example) == len(prompt):
            return None
        return attribute_answer(self.subject, self.question.text, example, self.method, started=self.started)

    def _showable(self) -> str:
        """The text up to a stop text, or to what may become one; a stop text ends the answer."""
        cuts = [at for stop in self.question.stop if (at := self._raw.find(stop)) >= 0]
        if cuts:
            self.finished = "stop"
            return self._raw[: min(cuts)]
        if self.finished:
            return self._raw
        held = max((overlap(self._raw, stop) for stop in self.question.stop), default=0)
        return self._raw[: len(self._raw) - held]


def answer(question: Question, served: ServedSubject) -> ServedReply:
    """The whole reply to one question, alone."""
    reply, decoder = ServedReply.to(question, served), Decoder(served.model)
    steps = [decoder.begin(reply.answer)]
    while steps:
        for step in steps:
            reply.take(step)
        steps = [] if reply.finished else decoder.step()
    return reply


def overlap(text: str, stop: str) -> int:
    """How many of the last characters of a text are the first of a stop text."""
    return next((n for n in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:n])), 0)
