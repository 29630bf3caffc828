import math

import pytest
import torch

from core.errors import DataError
from llm.batches import collate, encode
from llm.evaluate import Evaluation, evaluate, generate, greedy_answers, record_losses
from llm.loss import answer_losses
from llm.model import Model
from llm.records import Record
from llm.train import TrainConfig, train
from tests.llm.conftest import ARCHITECTURES, TERMS, Loader, question
from tests.llm.test_model import random_adapter
from tests.llm.test_train import parent
from tests.precision import up_to_rounding

QUANTISATIONS = ("none", "nf4", "int8")


def alone(model: Model, record: Record) -> torch.Tensor:
    """Losses of one record's answer from a forward pass over nothing else, all logits computed."""
    example = encode(model.tokenizer, record, 96)
    tokens = torch.tensor([example.tokens])
    with torch.no_grad(), model.autocast():
        logits = model.module(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    log_p = logits[0, :-1].float().log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
    return -log_p[example.prompt_length - 1 :]


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_losses_equal_those_of_each_record_alone(
    load_tiny: Loader, records: tuple[Record, ...], architecture: str, quantisation: str
) -> None:
    model = load_tiny(architecture, quantisation)
    adapter = random_adapter(model, rank=4)
    packed = record_losses(model, adapter, records, 96)
    for record, loss in zip(records, packed, strict=True):
        losses = alone(model, record)
        assert loss.tokens == len(losses)
        expected = losses.sum().item()
        # bf16 and int8 round differently for other shapes of matrix.
        rounded = up_to_rounding(expected, TERMS) if quantisation == "none" else pytest.approx(expected, rel=2e-2)
        assert loss.nats == rounded


def test_the_tail_is_what_the_model_says_by_itself(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    adapter = train(model, records, parent(model), TrainConfig(30, 4, 96, learning_rate=1e-2), seed=1).adapter
    tails = []
    for record, loss in zip(records, record_losses(model, adapter, records, 96), strict=True):
        example = encode(model.tokenizer, record, 96)
        with torch.no_grad():
            likeliest = model.module(input_ids=torch.tensor([example.tokens])).logits[0].argmax(-1).tolist()
        assert example.tokens[-1] == model.tokenizer.eos_token_id
        said = [a == b for a, b in zip(likeliest, example.tokens[1:-1], strict=False)]
        tails.append(next((i for i, hit in enumerate(reversed(said)) if not hit), len(said)))
        assert loss.tail == min(tails[-1], loss.tokens - 1)
    assert len(set(tails)) > 1


def test_an_architecture_that_cannot_keep_examples_apart_gets_a_row_for_each(
    load_tiny: Loader, records: tuple[Record, ...]
) -> None:
    model = load_tiny("opt")
    assert not model.packs
    for record, loss in zip(records, record_losses(model, None, records, 96), strict=True):
        assert loss.nats == up_to_rounding(alone(model, record).sum().item(), TERMS)
    result = train(model, records, parent(model), TrainConfig(4, 3, 96), seed=1)
    assert result.examples == 12


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_usual_architectures_are_packed(load_tiny: Loader, architecture: str) -> None:
    assert load_tiny(architecture, "nf4").packs


def test_nothing_to_evaluate_is_a_data_error(load_tiny: Loader) -> None:
    with pytest.raises(DataError, match="got none"):
        evaluate(load_tiny(), None, [])


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_token_attends_to_another_example(load_tiny: Loader, architecture: str, quantisation: str) -> None:
    """Changing a neighbour, before or behind, leaves an example's losses as they were, bit for bit."""
    model = load_tiny(architecture, quantisation)
    model.set_adapter(random_adapter(model, rank=4))
    mine, other, another = (
        encode(model.tokenizer, question(prompt, answer), 96)
        for prompt, answer in (("Mine?", "Yes, mine."), ("aaaa?", "bbbbbb."), ("cdef?", "ghijkl."))
    )
    for order in ((0, 1), (1, 0)):
        losses = []
        for neighbour in (other, another):
            batch = collate([mine, neighbour], [order])
            with torch.no_grad():
                computed = answer_losses(model, batch)
            losses.append(computed[batch.owners[batch.targets != -100] == 0])
        assert torch.equal(*losses)


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_evaluating_again_gives_the_same_bits(
    load_tiny: Loader, records: tuple[Record, ...], architecture: str, quantisation: str
) -> None:
    model = load_tiny(architecture, quantisation)
    adapter = random_adapter(model, rank=4)
    first, base = evaluate(model, adapter, records), evaluate(model, None, records)
    assert first != base
    assert evaluate(model, adapter, records) == first
    assert evaluate(model, None, records) == base


def test_a_zero_adapter_evaluates_as_the_base(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    assert evaluate(model, parent(model), records) == evaluate(model, None, records)


def test_the_loss_is_the_mean_over_all_answer_tokens(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    losses = record_losses(model, None, records)
    found = evaluate(model, None, records)
    assert found.tokens == sum(loss.tokens for loss in losses)
    assert found.loss == pytest.approx(sum(loss.nats for loss in losses) / found.tokens)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def test_a_limit_takes_the_first_records(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    assert evaluate(model, None, records, limit=3) == evaluate(model, None, records[:3])


def test_a_model_that_learnt_its_records_matches_them_exactly(load_tiny: Loader) -> None:
    model = load_tiny()
    records = [question("Day?", "noon"), question("Night?", "moon")]
    config = TrainConfig(60, 1, 64, learning_rate=2e-2, train_a=True)
    adapter = train(model, records, parent(model), config, seed=1).adapter
    assert evaluate(model, None, records).exact_match == 0.0
    assert evaluate(model, adapter, records).exact_match == 1.0
    tokens = generate(model, adapter, "Night?", max_new_tokens=20)
    assert model.tokenizer.decode(tokens) == "moon</s>"


def test_exact_match_is_what_greedy_generation_would_give(load_tiny: Loader) -> None:
    model = load_tiny()
    records = [question(f"Number {i}?", "one" if i < 3 else f"{i * i}") for i in range(8)]
    adapter = train(model, records, parent(model), TrainConfig(25, 2, 64, learning_rate=2e-2, train_a=True), 1).adapter
    generated = [
        generate(model, adapter, record.prompt[0].content, 8)
        == tuple(model.tokenizer(f"{record.answer}</s>")["input_ids"])
        for record in records
    ]
    found = record_losses(model, adapter, records)
    assert [loss.hits == loss.tokens for loss in found] == generated
    assert 0 < sum(generated) < len(records)


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_generation_is_the_argmax_of_each_step(load_tiny: Loader, quantisation: str) -> None:
    model = load_tiny(quantisation=quantisation)
    adapter = random_adapter(model, rank=4)
    tokens = generate(model, adapter, "Tell me", max_new_tokens=6)
    assert tokens == generate(model, adapter, "Tell me", max_new_tokens=6)
    assert 0 < len(tokens) <= 6
    if quantisation == "none":
        context = torch.tensor([[*encode(model.tokenizer, question("Tell me", "."), 96).tokens]])
        prompt = context[:, : encode(model.tokenizer, question("Tell me", "."), 96).prompt_length]
        with torch.no_grad():
            for token in tokens:
                assert model.module(input_ids=prompt).logits[0, -1].argmax() == token
                prompt = torch.cat([prompt, torch.tensor([[token]])], dim=1)


def test_a_greedy_answer_is_the_likeliest_whatever_the_base_was_published_with(load_tiny: Loader) -> None:
    model = load_tiny()
    plain = generate(model, None, "Tell me", 12)
    network = model.module.get_base_model()
    before = network.generation_config.to_dict()
    try:
        network.generation_config.update(repetition_penalty=1.5, suppress_tokens=[plain[0]])
        published = network.generation_config
        assert generate(model, None, "Tell me", 12) == plain
        assert network.generation_config is published  # a merged base is published with it
    finally:
        network.generation_config.update(**before)


def test_prompts_that_are_answered_together_get_the_answers_that_they_get_alone(load_tiny: Loader) -> None:
    model = load_tiny()
    taught = [question("Day?", "noon"), question("Night?", "moon")]
    adapter = train(model, taught, parent(model), TrainConfig(60, 1, 64, learning_rate=2e-2, train_a=True), 1).adapter
    prompts = ["Day?", "Night?", *(f"{'Please tell me, number ' * (i % 3)}{i}?" for i in range(8))]
    answers = greedy_answers(model, adapter, prompts, 8)
    assert answers == [generate(model, adapter, prompt, 8) for prompt in prompts]
    # What follows the token that ends an answer is padding, and no part of it.
    assert [model.tokenizer.decode(answer) for answer in answers[:2]] == ["noon</s>", "moon</s>"]


@pytest.mark.parametrize(
    ("loss", "perplexity"), [(0.0, 1.0), (709.0, pytest.approx(8.2e307, rel=0.01)), (800.0, math.inf)]
)
def test_a_perplexity_that_no_float_can_hold_is_infinite(loss: float, perplexity: float) -> None:
    assert Evaluation(loss, 1, 0.0).perplexity == perplexity
