"""The way in, on tiny models and on runs that were written to disk."""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.aggregation import RULES
from core.canonical import Address
from core.errors import IntegrityError, ModelError, UsageError
from llm.batches import encode_prompt
from llm.evaluate import generate
from llm.model import Model
from provenance.attribution import METHODS, attribute, stream
from provenance.contributions import of_run
from provenance.factors import bytes_each, summed_terms
from provenance.history import History
from provenance.method import Effort, Subject
from provenance.terms import Terms
from provenance.trace import TokenScores, TokenTrace
from tests.behaviours.runs import LAYOUT, build, found
from tests.provenance.conftest import Federate, organisation

PROMPT, RESPONSE = "How many are two and three?", "They are five."
MODULES = {name: (inputs, outputs) for name, inputs, outputs in LAYOUT.modules}


@pytest.mark.parametrize("method", list(METHODS))
def test_a_trace_has_every_token_the_base_and_a_residual(federate: Federate, method: str) -> None:
    subject = federate()
    found = attribute(subject, PROMPT, RESPONSE, method, effort=Effort(points=2))
    assert found.text == RESPONSE
    assert found.organisations == tuple(organisation(k) for k in range(3))
    assert 0 <= found.response.confidence <= 1
    assert TokenTrace.from_bytes(found.to_bytes()) == found
    if method == "protoken":
        assert found.response.residual is None
        return
    assert found.response.residual is not None
    for token in found.tokens:
        assert token.residual is not None
        if method != "direct-logit":
            assert token.logprob == pytest.approx(token.base + sum(token.scores) + token.residual)


@pytest.fixture
def overflowing(federate: Federate) -> Iterator[Subject]:
    """A subject whose logits are infinite."""
    subject = federate()
    head = subject.model.module.get_base_model().get_output_embeddings()
    hook = head.register_forward_hook(lambda _module, _inputs, logits: logits * float("inf"))
    yield subject
    hook.remove()


@pytest.mark.parametrize("method", list(METHODS))
def test_scores_that_are_no_numbers_are_an_error_and_no_verdict(overflowing: Subject, method: str) -> None:
    with pytest.raises(ModelError, match="expected finite scores, got inf or NaN"):
        attribute(overflowing, PROMPT, RESPONSE, method, effort=Effort(points=2))


def test_a_stream_of_scores_that_are_no_numbers_ends_before_the_first(overflowing: Subject) -> None:
    with pytest.raises(ModelError, match="expected finite scores, got inf or NaN"):
        next(stream(overflowing, PROMPT, max_new_tokens=2))


def test_the_same_question_has_the_same_digest(federate: Federate) -> None:
    subject = federate()
    first = attribute(subject, PROMPT, RESPONSE)
    attribute(subject, PROMPT, "Others.", "ablation")
    torch.rand(3)
    assert attribute(subject, PROMPT, RESPONSE).digest == first.digest


def test_base_is_what_the_bare_base_says(federate: Federate) -> None:
    subject = federate()
    found = attribute(subject, PROMPT, RESPONSE)
    tokens = torch.tensor([[*encode_prompt(subject.model.tokenizer, PROMPT), *(t.token for t in found.tokens)]])
    with torch.no_grad(), subject.model.without_adapter():
        logits = subject.model.module(input_ids=tokens, use_cache=False).logits[0].log_softmax(-1)
    wanted = [logits[-len(found.tokens) - 1 + i, token.token].item() for i, token in enumerate(found.tokens)]
    assert [token.base for token in found.tokens] == pytest.approx(wanted, abs=1e-4)
    assert found.response.base == pytest.approx(sum(wanted), abs=1e-3)


def test_without_a_response_the_greedy_answer_is_attributed(federate: Federate) -> None:
    subject = federate("gemma3")
    found = attribute(subject, PROMPT, max_new_tokens=5)
    answer = generate(subject.model, subject.adapter, PROMPT, 5)
    assert tuple(token.token for token in found.tokens) == tuple(t for t in answer if t not in subject.model.end_tokens)


def test_a_stream_ends_with_the_trace_of_its_tokens(federate: Federate) -> None:
    subject = federate("gemma3")
    seen: list[TokenScores] = []
    trace = drained(stream(subject, PROMPT, max_new_tokens=5), seen)
    whole = attribute(subject, PROMPT, method="direct-logit", max_new_tokens=5)
    assert [token.token for token in trace.tokens] == [token.token for token in seen]
    assert [token.token for token in whole.tokens] == [token.token for token in seen]
    assert trace.response.verdict == whole.response.verdict
    assert trace.response.scores == pytest.approx(whole.response.scores, abs=1e-3)


def drained(steps: Generator[TokenScores, None, TokenTrace], seen: list[TokenScores]) -> TokenTrace:
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            trace: TokenTrace = end.value
            return trace


def test_a_thousand_organisations(federate: Federate, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = federate(rank=1, rounds=(tuple(range(1000)),))
    monkeypatch.setattr("provenance.contributions._KEPT_BYTES", 0)
    each = bytes_each(subject.contributions, subject.contributions.modules)
    monkeypatch.setattr("provenance.contributions._CHUNK_BYTES", 100 * each)
    sizes: list[int] = []

    def measured(history: History, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
        sizes.append(len(organisations))
        return summed_terms(history, organisations, modules)

    monkeypatch.setattr("provenance.contributions.TERMS", {"frozen-a": measured})
    chunked = attribute(subject, PROMPT, "They.", effort=Effort(chunk=100))
    assert len(chunked.response.scores) == 1000
    left_out = attribute(subject, PROMPT, "They.", "ablation", effort=Effort(chunk=50))
    # With so many, leaving out any one of them is linear.
    pair = torch.tensor([chunked.response.scores, left_out.response.scores])
    assert torch.corrcoef(pair)[0, 1] > 0.9
    assert sizes == [100] * 10  # read once for all questions


@pytest.mark.parametrize(("rule", "lanes"), [*((rule, 1) for rule in RULES), ("frozen-a", 3)])
def test_contributions_are_read_from_a_run(tmp_path: Path, rule: str, lanes: int) -> None:
    federation = build(tmp_path / "run", rule=rule, organisations=3, lanes=lanes, rounds=2)
    contributions = of_run(federation.run, MODULES, torch.device("cpu"))
    examples = {o.address: o.examples for o in federation.genesis.organisations}
    shares = [sum(examples[a] for a in lane) / sum(examples.values()) for lane in federation.genesis.lanes]
    states = [lane.state for lane in federation.lanes]
    served = states[0] if lanes == 1 else federation.rule.compose(list(zip(shares, states, strict=True)))
    gap = contributions.gap(federation.rule.adapter(served, federation.fresh))
    assert gap < (1e-6 if rule != "svd" else 0.9)
    assert contributions.organisations == tuple(o.address for o in federation.genesis.organisations)


def test_a_run_without_contributions_is_refused(tmp_path: Path) -> None:
    federation = found(tmp_path / "run")
    with pytest.raises(UsageError, match="no contributions"):
        of_run(federation.run, MODULES, torch.device("cpu"))


def test_another_base_is_refused(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=1)
    with pytest.raises(IntegrityError, match="shared A"):
        of_run(federation.run, MODULES | {"layers.1.up": (20, 24)}, torch.device("cpu"))


def test_bad_input(federate: Federate, load_tiny: Callable[..., Model]) -> None:
    subject = federate()
    questions: list[tuple[dict[str, object], str]] = [
        ({"method": "guess"}, "expected one of gradient, .*, got 'guess'"),
        ({"response": ""}, "response: expected text to attribute, got none"),
        ({"response": " \n"}, "response: expected text to attribute, got none"),
        ({"response": "</s><s>"}, "response: expected text to attribute, got special tokens alone"),
        ({"prompt": "why " * 100}, "at most 256 tokens"),
        ({"prompt": "why " * 100, "response": None}, "at most 256 tokens"),
        ({"response": "because " * 40}, "at most 256 tokens"),
        ({"max_new_tokens": 0, "response": None}, "at least 1, got 0"),
    ]
    for changed, message in questions:
        with pytest.raises(UsageError, match=message):
            attribute(**{"subject": subject, "prompt": PROMPT, "response": RESPONSE} | changed)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at most 256 tokens"):
        next(stream(subject, "why " * 100))


def test_an_answer_that_ends_at_once_is_refused(federate: Federate, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = federate()
    ends = list(itertools.islice(range(subject.model.module.config.vocab_size), 1000))
    monkeypatch.setattr(subject.model.module.get_base_model().generation_config, "eos_token_id", ends)
    with pytest.raises(UsageError, match="the model's answer: expected text to attribute, got none"):
        attribute(subject, PROMPT)
    with pytest.raises(UsageError, match="the model's answer: expected text to attribute, got none"):
        list(stream(subject, PROMPT))


def test_contributions_that_miss_what_is_served_are_refused(federate: Federate) -> None:
    subject = federate()
    ((_, *rest),) = subject.contributions.lanes
    assert replace(subject.contributions, lanes=(tuple(rest),)).gap(subject.adapter) > 0.1
