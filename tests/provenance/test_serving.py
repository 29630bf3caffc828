"""Replies: their scores are those of the whole answer, and stop texts are never shown."""

import pytest

from core.composition import Composition, Part
from core.errors import UsageError
from llm.batches import pieces
from llm.decoding import Decoder, Sampling
from llm.records import Message
from provenance.attribution import DEFAULT, attribute
from provenance.ensemble import EnsembleSubject
from provenance.serving import ANY_METHOD, STREAMED, Question, ServedReply, ServedSubject, answer
from tests.provenance.conftest import Federate

PROMPT = "How many are two and three?"


def question(method: str = "", most: int = 8, **options: object) -> Question:
    return Question((Message("user", PROMPT),), most, method=method, **options)  # type: ignore[arg-type] # of the test


@pytest.mark.parametrize("method", [STREAMED, "marginal", ANY_METHOD])
def test_the_trace_of_a_reply_is_that_of_its_text(federate: Federate, method: str) -> None:
    subject = federate()
    found = answer(question(method), ServedSubject(subject)).trace()
    expected = attribute(subject, PROMPT, None, STREAMED if method == ANY_METHOD else method, 8)
    assert found is not None
    assert (found.text, found.method, found.organisations) == (expected.text, expected.method, expected.organisations)
    for got, want in zip(found.tokens, expected.tokens, strict=True):
        assert got.scores == pytest.approx(want.scores, abs=1e-3)
        assert got.base == pytest.approx(want.base, abs=1e-3)
    assert found.response.verdict == expected.response.verdict


def test_scores_come_with_every_token_and_belong_to_its_own_row(federate: Federate) -> None:
    subject = federate()
    served, decoder = ServedSubject(subject), Decoder(subject.model)
    long = Question((Message("user", f"{PROMPT} And why is that so, if you please?"),), 6, method=STREAMED)
    replies = [ServedReply.to(asked, served) for asked in (long, question(), question(STREAMED))]
    scored: dict[int, list[tuple[float, ...]]] = {number: [] for number in range(3)}
    steps = [decoder.begin(reply.answer) for reply in replies]
    while steps:
        for step in steps:
            number = next(n for n, reply in enumerate(replies) if reply.answer is step.answer)
            _, scores = replies[number].take(step)
            scored[number] += [scores.scores] if scores else []
        steps = decoder.step()
    assert not scored[1]
    for number, prompt in ((0, long.text), (2, PROMPT)):
        alone = attribute(subject, prompt, None, STREAMED, replies[number].question.most)
        assert len(scored[number]) == len(alone.tokens)
        for got, want in zip(scored[number], alone.tokens, strict=True):
            assert got == pytest.approx(want.scores, abs=1e-3)


def test_nothing_is_traced_unless_it_is_asked_for(federate: Federate) -> None:
    assert answer(question(), ServedSubject(federate())).trace() is None


def test_an_answer_ends_before_a_stop_text_that_two_tokens_spell(federate: Federate) -> None:
    served = ServedSubject(federate())
    whole = answer(question(most=12), served)
    tokens = pieces(served.model.tokenizer, whole.answer.tokens)
    stop = (tokens[4] or tokens[5])[-1:] + next(text for text in tokens[6:] if text)[:1]
    expected = whole.text.partition(stop)[0]
    reply, decoder, shown = ServedReply.to(question(most=12, stop=(stop,)), served), Decoder(served.model), ""
    steps = [decoder.begin(reply.answer)]
    while steps:
        for step in steps:
            added, _ = reply.take(step)
            shown += added
            assert stop not in shown
        steps = [] if reply.finished else decoder.step()
    assert shown == reply.text == expected
    assert reply.finished == "stop"
    assert whole.finished == "length"


def test_a_text_that_might_have_become_a_stop_text_is_shown_in_the_end(federate: Federate) -> None:
    served = ServedSubject(federate())
    whole = answer(question(), served).text
    assert answer(question(stop=(whole[-2:] + "never",)), served).text == whole


def test_an_ensemble_is_traced_as_a_whole_and_by_methods_that_know_mixtures(federate: Federate) -> None:
    first, second = federate(seed=b"x"), federate(seed=b"x", rounds=((1, 2), (2,)))
    adapter = Composition("ensemble", (Part(0.5, first.adapter), Part(0.5, second.adapter)))
    served = ServedSubject(EnsembleSubject(adapter, (first, second)))
    found = answer(question(ANY_METHOD), served).trace()
    assert found is not None
    assert found.method == DEFAULT
    with pytest.raises(UsageError, match="as an ensemble answers, got 'direct-logit'"):
        answer(question(STREAMED), served)


@pytest.mark.parametrize("method", ["guess", "Ablation"])
def test_an_unknown_method_is_refused(federate: Federate, method: str) -> None:
    with pytest.raises(UsageError, match="method: expected one of"):
        answer(question(method), ServedSubject(federate()))


def test_a_prompt_beyond_the_context_is_refused(federate: Federate) -> None:
    with pytest.raises(UsageError, match="context"):
        answer(Question((Message("user", "word " * 200),), 4), ServedSubject(federate()))


def test_a_drawn_answer_is_traced_as_it_was_drawn(federate: Federate) -> None:
    reply = answer(question(STREAMED, sampling=Sampling(1.5, 1.0, 3)), ServedSubject(federate()))
    trace = reply.trace()
    assert trace is not None
    assert [token.token for token in trace.tokens] == reply.answer.tokens
