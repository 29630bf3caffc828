"""Independently trained lanes, composed: measured, generated, routed."""

import math
from collections.abc import Sequence

import pytest
import torch

from core.adapter import AdapterState
from core.composition import Composition, Part
from llm.batches import encode, encode_prompt
from llm.evaluate import evaluate, generate, greedy_answers, record_losses, route
from llm.model import Model
from llm.records import Record
from llm.train import TrainConfig, train
from tests.llm.conftest import TERMS, Loader, question
from tests.llm.test_model import random_adapter
from tests.llm.test_train import parent
from tests.precision import up_to_rounding

SHARES = (0.2, 0.5, 0.3)


def composed(kind: str, states: Sequence[AdapterState]) -> Composition:
    return Composition(kind, tuple(Part(share, state) for share, state in zip(SHARES, states, strict=True)))


def lanes(model: Model) -> list[AdapterState]:
    return [random_adapter(model, rank=4, seed=seed) for seed in range(3)]


def logits(model: Model, adapter: AdapterState, tokens: Sequence[int]) -> torch.Tensor:
    """All logits (tokens, vocabulary), without packing, hooks or caches."""
    model.set_adapter(adapter)
    with torch.no_grad():
        found: torch.Tensor = model.module(input_ids=torch.tensor([tokens])).logits[0].double()
    return found


def mixture(model: Model, adapters: Composition, tokens: Sequence[int]) -> torch.Tensor:
    """Probabilities (tokens, vocabulary), added up as probabilities."""
    return torch.stack([p.share * logits(model, p.state, tokens).softmax(-1) for p in adapters.parts]).sum(0)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "opt"])
def test_an_ensemble_is_the_mixture_of_its_probabilities(
    load_tiny: Loader, records: tuple[Record, ...], architecture: str
) -> None:
    model = load_tiny(architecture)
    adapters = composed("ensemble", lanes(model))
    for record, loss in zip(records, record_losses(model, adapters, records, 96), strict=True):
        example = encode(model.tokenizer, record, 96)
        answer = torch.tensor(example.tokens[example.prompt_length :])
        p = mixture(model, adapters, example.tokens)[example.prompt_length - 1 : -1]
        assert loss.tokens == len(answer)
        assert loss.nats == up_to_rounding(-p.gather(1, answer[:, None]).log().sum().item(), TERMS)
        assert loss.hits == int((p.argmax(-1) == answer).sum())


def test_an_ensemble_is_neither_the_mean_of_logits_nor_of_losses(
    load_tiny: Loader, records: tuple[Record, ...]
) -> None:
    model = load_tiny()
    adapters = composed("ensemble", lanes(model))
    apart = [evaluate(model, part.state, records).loss for part in adapters.parts]
    mean = sum(share * loss for share, loss in zip(SHARES, apart, strict=True))
    assert evaluate(model, adapters, records).loss < mean - 0.01  # −log is convex


def test_an_ensemble_of_equals_is_each_of_them(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    alone = random_adapter(model, rank=4)
    found = evaluate(model, composed("ensemble", [alone] * 3), records)
    assert found.loss == up_to_rounding(evaluate(model, alone, records).loss, TERMS)


@pytest.mark.parametrize("kind", ["ensemble", "routing"])
def test_measuring_again_gives_the_same_bits(load_tiny: Loader, records: tuple[Record, ...], kind: str) -> None:
    model = load_tiny()
    adapters = composed(kind, lanes(model))
    assert record_losses(model, adapters, records) == record_losses(model, adapters, records)
    assert generate(model, adapters, "Tell me", 6) == generate(model, adapters, "Tell me", 6)


def test_a_sum_is_measured_as_its_one_adapter(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    alone = random_adapter(model, rank=4)
    assert evaluate(model, Composition.of(alone), records) == evaluate(model, alone, records)
    assert generate(model, Composition.of(alone), "Tell me", 6) == generate(model, alone, "Tell me", 6)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_an_ensemble_generates_the_likeliest_token_of_the_mixture(load_tiny: Loader, architecture: str) -> None:
    model = load_tiny(architecture)
    adapters = composed("ensemble", lanes(model))
    tokens = list(encode_prompt(model.tokenizer, "Tell me"))
    answer = generate(model, adapters, "Tell me", 6)
    assert 0 < len(answer) <= 6
    for token in answer:
        assert int(mixture(model, adapters, tokens)[-1].argmax()) == token
        tokens.append(token)


def test_an_ensemble_ends_where_its_mixture_does(load_tiny: Loader) -> None:
    model = load_tiny()
    learnt = train(model, [question("Night?", "moon")], parent(model), TrainConfig(60, 1, 64, 2e-2, train_a=True), 1)
    tokens = generate(model, composed("ensemble", [learnt.adapter] * 3), "Night?", 20)
    assert model.tokenizer.decode(tokens) == "moon</s>"


def test_a_record_is_measured_in_the_lane_that_its_prompt_goes_to(
    load_tiny: Loader, records: tuple[Record, ...]
) -> None:
    model = load_tiny()
    adapters = composed("routing", [random_adapter(model, rank=1, seed=seed) for seed in range(3)])
    prompts = [e.tokens[: e.prompt_length] for e in (encode(model.tokenizer, r, 96) for r in records)]
    chosen = route(model, adapters, prompts)
    assert len(set(chosen)) > 1
    losses = record_losses(model, adapters, records, 96)
    for record, part, loss in zip(records, chosen, losses, strict=True):
        (alone,) = record_losses(model, adapters.states[part], [record], 96)
        assert loss.nats == up_to_rounding(alone.nats, TERMS)
        assert loss.tokens == alone.tokens


def test_a_routed_answer_is_its_lane_s_own(load_tiny: Loader) -> None:
    model = load_tiny()
    adapters = composed("routing", lanes(model))
    (part,) = route(model, adapters, [encode_prompt(model.tokenizer, "Tell me")])
    assert generate(model, adapters, "Tell me", 6) == generate(model, adapters.states[part], "Tell me", 6)


@pytest.mark.parametrize("kind", ["ensemble", "routing"])
def test_a_composition_answers_several_prompts_as_it_answers_each(
    load_tiny: Loader, records: tuple[Record, ...], kind: str
) -> None:
    model = load_tiny()
    adapters = composed(kind, [random_adapter(model, rank=1, seed=seed) for seed in range(3)])
    prompts = [record.prompt[0].content for record in records]
    assert (
        kind == "ensemble" or len(set(route(model, adapters, [encode_prompt(model.tokenizer, p) for p in prompts]))) > 1
    )
    assert greedy_answers(model, adapters, prompts, 6) == [generate(model, adapters, prompt, 6) for prompt in prompts]


def test_equals_and_prompts_that_say_nothing_go_to_the_first(load_tiny: Loader) -> None:
    model = load_tiny()
    alone = random_adapter(model, rank=4)
    assert route(model, composed("routing", [alone] * 3), [encode_prompt(model.tokenizer, "Why?")]) == (0,)
    assert route(model, composed("routing", lanes(model)), [()]) == (0,)


def test_shares_count_in_log_space(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    """A share so small that its probabilities vanish beside the others changes nothing, and is no log of zero."""
    model = load_tiny()
    first, second, _ = lanes(model)
    found = evaluate(model, Composition("ensemble", (Part(1.0, first), Part(1e-300, second))), records).loss
    assert math.isfinite(found)
    assert found == up_to_rounding(evaluate(model, first, records).loss, TERMS)
