"""Answers that are decoded together are those that each would have got alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from core import lora
from core.adapter import AdapterState
from core.composition import Composition, Part
from core.errors import UsageError
from llm import residual_stream
from llm.batches import encode_prompt
from llm.decoding import Answer, Decoder, Sampling, factors_of
from llm.evaluate import generate
from llm.model import Model

PROMPTS = ("How many?", "Which dose of it is the right one for a child of two years?", "Why")
MOST = 12


def random_adapter(model: Model, seed: int, rank: int = 4) -> AdapterState:
    source = np.random.default_rng(seed)
    fresh = lora.fresh(lora.Layout.of(model.modules, rank), b"x")
    return AdapterState({n: source.normal(size=fresh[n].shape).astype(np.float32) * np.float32(0.3) for n in fresh})


def asked(model: Model, prompt: str, adapter: Composition, sampling: Sampling = Sampling()) -> Answer:  # noqa: B008
    return Answer(encode_prompt(model.tokenizer, prompt), factors_of(model, adapter), sampling, MOST)


def finish(decoder: Decoder) -> None:
    while len(decoder):
        decoder.step()


@pytest.fixture
def model(load_tiny: Callable[..., Model]) -> Model:
    return load_tiny("llama", "none", 4)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "mistral"])
def test_an_answer_that_joins_between_two_tokens_is_what_it_would_be_alone(
    load_tiny: Callable[..., Model], architecture: str
) -> None:
    model = load_tiny(architecture, "none", 4)
    adapters = [Composition.of(random_adapter(model, seed, rank)) for seed, rank in ((0, 4), (1, 2), (2, 4))]
    decoder, answers = Decoder(model), []
    for prompt, adapter in zip(PROMPTS, adapters, strict=True):
        answers.append(asked(model, prompt, adapter))
        decoder.begin(answers[-1])
        decoder.step()
    finish(decoder)
    for prompt, adapter, answer in zip(PROMPTS, adapters, answers, strict=True):
        alone = [token for token in generate(model, adapter, prompt, MOST) if token not in model.end_tokens]
        assert answer.tokens == alone


def test_an_answer_that_is_dropped_changes_no_other(model: Model) -> None:
    adapter, decoder = Composition.of(random_adapter(model, 0)), Decoder(model)
    first, second = asked(model, PROMPTS[1], adapter), asked(model, PROMPTS[0], adapter)
    decoder.begin(first)
    decoder.begin(second)
    decoder.step()
    decoder.drop([first])
    assert len(decoder) == 1
    finish(decoder)
    assert tuple(second.tokens) == generate(model, adapter, PROMPTS[0], MOST)[: len(second.tokens)]
    assert len(first.tokens) == 2


def test_an_ensemble_decodes_the_mixture_of_its_parts_beside_an_answer_of_one(model: Model) -> None:
    parts = tuple(Part(share, random_adapter(model, seed)) for seed, share in enumerate((0.75, 0.25)))
    mixed, single = Composition("ensemble", parts), Composition.of(random_adapter(model, 5))
    decoder = Decoder(model)
    answers = [asked(model, PROMPTS[0], single), asked(model, PROMPTS[1], mixed)]
    for answer in answers:
        decoder.begin(answer)
    finish(decoder)
    for prompt, adapter, answer in zip(PROMPTS, (single, mixed), answers, strict=False):
        assert tuple(answer.tokens) == generate(model, adapter, prompt, MOST)[: len(answer.tokens)]
        assert answer.tokens


def test_the_log_probability_of_a_token_is_that_of_the_mixture(model: Model) -> None:
    parts = tuple(Part(0.5, random_adapter(model, seed)) for seed in (0, 1))
    steps = [Decoder(model).begin(asked(model, PROMPTS[0], Composition.of(part.state))) for part in parts]
    step = Decoder(model).begin(asked(model, PROMPTS[0], Composition("ensemble", parts)))
    token = step.answer.tokens[0]
    alone = torch.stack([one.logits[0].log_softmax(-1)[token] for one in steps])
    assert step.logprob == pytest.approx(float(alone.exp().mean().log()), abs=1e-5)


def test_an_ensemble_is_not_watched_while_it_generates(model: Model) -> None:
    parts = tuple(Part(0.5, random_adapter(model, seed)) for seed in (0, 1))
    with pytest.raises(UsageError, match="ensemble"):
        Answer((1,), factors_of(model, Composition("ensemble", parts)), Sampling(), 4, watched=True)


def test_a_model_is_looked_at_before_an_adapter_is_in_place(model: Model) -> None:
    """With it the parts of the base alone would not add up to the logits, and the decoder would seem another build."""
    residual_stream._PROBED.clear()
    factors = factors_of(model, Composition.of(random_adapter(model, 0)))
    answer, decoder = Answer((1, 2, 3), factors, Sampling(), 4, watched=True), Decoder(model)
    assert decoder.begin(answer).writes is not None


def test_equal_seeds_draw_equal_answers_and_others_do_not(model: Model) -> None:
    adapter, found = Composition.of(random_adapter(model, 0)), []
    for seed in (1, 1, 2):
        answer, decoder = asked(model, PROMPTS[0], adapter, Sampling(1.5, 1.0, seed)), Decoder(model)
        decoder.begin(answer)
        finish(decoder)
        found.append(answer.tokens)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(0.0), {0}),
        (Sampling(1e-9), {0}),
        (Sampling(1.0, 0.0), {0}),
        (Sampling(1.0, 0.5), {0}),
        (Sampling(1.0, 0.6), {0, 1}),
        (Sampling(1.0, 1.0), {0, 1, 2}),
    ],
)
def test_only_the_nucleus_is_drawn_from(sampling: Sampling, expected: set[int]) -> None:
    logprobs = torch.tensor([0.5, 0.25, 0.25]).log()
    generator = torch.Generator().manual_seed(0)
    assert {sampling.choose(logprobs, generator) for _ in range(100)} == expected
