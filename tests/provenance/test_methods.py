"""The fast methods against the slow references, on random federations."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

from core.aggregation import RULES
from core.errors import ModelError, UsageError
from llm.batches import Example
from llm.model import Model
from llm.residual_stream import residual_stream
from provenance.ablation import ablation
from provenance.attribution import METHODS
from provenance.direct_logit import direct_logit, direct_stream
from provenance.gradient import gradient
from provenance.method import Effort, Subject, base_logprobs, logprobs_of
from provenance.protoken import protoken
from provenance.shapley import exact_shapley, shapley
from tests.llm.conftest import ARCHITECTURES
from tests.llm.made_up_devices import FIRST, spread
from tests.precision import assert_equal_up_to_rounding, derivative, float32_error
from tests.provenance.conftest import EXAMPLE, TERMS, Federate, organisation
from tests.provenance.reference import in_float64, own_position_gradients, paper_scores, token_logprobs, total_gradients

SHORT = Example(EXAMPLE.tokens[:33], 27)


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal up to rounding, and about something: rounding is far below what tells organisations apart."""
    spread = (wanted.max(dim=-1).values - wanted.min(dim=-1).values).mean().item()
    assert 1e-3 * spread > float32_error(wanted.abs().max().item(), TERMS)
    assert_equal_up_to_rounding(got, wanted, TERMS)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_spread_base_is_attributed_to_the_bit(federate: Federate, method: str) -> None:
    subject = federate()
    expected = subject.scores(METHODS[method], SHORT, Effort(points=2))
    elsewhere = replace(subject, contributions=replace(subject.contributions, device=FIRST))
    with spread(subject.model, ("model.layers.1", "model.norm")) as devices:
        found = elsewhere.scores(METHODS[method], SHORT, Effort(points=2))
        familiar = elsewhere.familiarity(SHORT, found)
    assert devices.moves
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.response, expected.response)
    assert torch.equal(found.logprobs, expected.logprobs)
    assert torch.equal(familiar, subject.familiarity(SHORT, expected))


# --- protoken ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_protoken_gives_the_scores_of_the_papers_procedure(federate: Federate, architecture: str) -> None:
    subject = federate(architecture)
    found = protoken(subject, EXAMPLE, Effort())
    close(found.tokens, paper_scores(subject, EXAMPLE, found.organisations))
    assert found.explained is None


@pytest.mark.parametrize("rule", list(RULES))
def test_protoken_knows_the_clients_of_every_rule(federate: Federate, rule: str) -> None:
    subject = federate(rule_name=rule, rounds=((0, 1, 2), (0, 2)))
    found = protoken(subject, SHORT, Effort(chunk=1))
    assert found.organisations == (organisation(0), organisation(2))
    close(found.tokens, paper_scores(subject, SHORT, found.organisations))


# --- gradient ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_is_exact_at_every_depth(federate: Federate, architecture: str) -> None:
    subject = federate(architecture)
    found = gradient(subject, EXAMPLE, Effort())
    close(found.tokens, own_position_gradients(subject, EXAMPLE))
    totals = total_gradients(subject, EXAMPLE)
    close(found.response, totals.sum(0))
    close(gradient(subject, EXAMPLE, Effort(exact=True)).tokens, totals)
    assert (totals - found.tokens).abs().max() > 1e-3  # other positions do matter here


@pytest.mark.parametrize("rule", list(RULES))
def test_gradient_works_for_every_rule(federate: Federate, rule: str) -> None:
    subject = federate(rule_name=rule, rounds=((0, 1, 2), (0, 2)))
    found = gradient(subject, SHORT, Effort(chunk=2))
    close(found.tokens, own_position_gradients(subject, SHORT))
    close(found.response, total_gradients(subject, SHORT).sum(0))


@pytest.mark.parametrize("seed", [b"x", b"y", b"z"])
def test_response_totals_are_what_finite_differences_give(federate: Federate, seed: bytes) -> None:
    subject = federate(seed=seed)
    found = gradient(subject, EXAMPLE, Effort())
    exact = in_float64(subject)

    def total(change: float, organisation: int) -> torch.Tensor:
        """Log p of the response when a contribution counts by so much more."""
        with torch.no_grad():
            return token_logprobs(exact, EXAMPLE, change * torch.eye(3)[organisation]).sum()

    slopes = [derivative(partial(total, organisation=k)) for k in range(len(found.organisations))]
    wanted, unsure = torch.stack([slope for slope, _ in slopes]), max(unsure for _, unsure in slopes)
    assert unsure < 1e-3 * wanted.abs().max()
    assert_equal_up_to_rounding(found.response, wanted, TERMS * len(found.tokens), unsure)


def test_gradient_leaves_the_model_as_it_was(federate: Federate) -> None:
    subject = federate()
    before = logprobs_of(subject, EXAMPLE)
    asking = [p.requires_grad for p in subject.model.module.parameters()]
    implementation = subject.model.module.config._attn_implementation
    gradient(subject, EXAMPLE, Effort())
    assert torch.equal(logprobs_of(subject, EXAMPLE), before)
    assert [p.requires_grad for p in subject.model.module.parameters()] == asking
    assert subject.model.module.config._attn_implementation == implementation == "sdpa"


# --- shapley and ablation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [b"x", b"y", b"z"])
def test_shapley_converges_to_completeness(federate: Federate, seed: bytes) -> None:
    """What is missing is the error of the quadrature: it falls with the points until only rounding is left."""
    subject = federate(seed=seed)
    missing = []
    for points in (1, 8, 64):
        found = shapley(subject, SHORT, Effort(points=points))
        missing.append((found.logprobs - found.base - found.tokens.sum(1)).abs().max().item())
    rounding = float32_error(torch.stack([found.logprobs, found.base]).abs().max().item(), TERMS)
    assert missing[0] > missing[1] > rounding > missing[2]


@pytest.mark.parametrize("rule", list(RULES))
def test_ablation_leaves_one_out(federate: Federate, rule: str) -> None:
    subject = federate(rule_name=rule, rounds=((0, 1, 2), (0, 2)))
    found = ablation(subject, SHORT, Effort(chunk=2))
    with torch.no_grad():
        full = token_logprobs(subject, SHORT)
        for k in range(3):
            without = token_logprobs(subject, SHORT, -torch.eye(3)[k])
            assert torch.allclose(found.tokens[:, k], (full - without).double(), atol=2e-4)


@pytest.mark.parametrize("rule", list(RULES))
def test_exact_shapley_values_are_complete_and_agree_with_ablation_for_one(federate: Federate, rule: str) -> None:
    subject = federate(rule_name=rule, rounds=((0, 1, 2),))
    values = exact_shapley(subject, SHORT)
    if rule == "svd":
        return  # what its contributions add up to is not what is served
    served, base = logprobs_of(subject, SHORT), base_logprobs(subject, SHORT)
    assert torch.allclose(values.sum(1), served - base, atol=2e-4)
    alone = federate(rule_name=rule, rounds=((1,),))
    assert torch.allclose(exact_shapley(alone, SHORT), ablation(alone, SHORT, Effort()).tokens, atol=2e-4)


def test_points_and_coalitions_have_bounds(federate: Federate) -> None:
    with pytest.raises(UsageError, match="points"):
        shapley(federate(), SHORT, Effort(points=0))
    with pytest.raises(UsageError, match="at most 10"):
        exact_shapley(federate(rank=1, rounds=(tuple(range(11)),)), SHORT)


# --- direct logit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_direct_logit_adds_up_to_the_logit(federate: Federate, architecture: str) -> None:
    subject = federate(architecture)
    found = direct_logit(subject, EXAMPLE, Effort())
    assert found.explained is not None
    logits = subject.model.module.get_base_model()(input_ids=torch.tensor([EXAMPLE.tokens]), use_cache=False).logits[0]
    wanted = torch.tensor(EXAMPLE.tokens[EXAMPLE.prompt_length :])
    chosen = logits[EXAMPLE.prompt_length - 1 : -1].gather(-1, wanted[:, None])[:, 0]
    assert torch.allclose(found.explained, chosen.double(), atol=1e-5)
    assert (found.explained - found.base - found.tokens.sum(1)).abs().max() < 1e-4
    assert found.tokens.abs().max() > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_direct_logit_streams_the_same_scores(federate: Federate, architecture: str) -> None:
    subject = federate(architecture)
    prompt = EXAMPLE.tokens[: EXAMPLE.prompt_length]
    steps = list(direct_stream(subject, prompt, 6, Effort()))
    tokens = tuple(token for token, _ in steps)
    greedy = subject.model.module.get_base_model().generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=6, do_sample=False
    )
    assert tokens == tuple(
        token for token in greedy[0, len(prompt) :].tolist() if token not in subject.model.end_tokens
    )
    whole = direct_logit(subject, Example((*prompt, *tokens), len(prompt)), Effort())
    for (_, step), scores, base in zip(steps, whole.tokens, whole.base, strict=True):
        assert torch.allclose(step.tokens[0], scores, atol=1e-4)
        assert torch.allclose(step.base[0], base, atol=1e-4)


# --- kinds of base -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["nf4", "bfloat16"])
def test_every_method_works_on_narrow_bases(federate: Federate, architecture: str, kind: str) -> None:
    subject = narrow(federate, architecture, kind)
    ours, wide = gradient(subject, SHORT, Effort()), gradient(subject, SHORT, Effort(exact=True))
    assert torch.allclose(ours.response, wide.response, rtol=0, atol=0.1)
    direct = direct_logit(subject, SHORT, Effort())
    assert direct.explained is not None
    assert (direct.explained - direct.base - direct.tokens.sum(1)).abs().max() < 0.05
    found = protoken(subject, SHORT, Effort())
    naive = paper_scores(subject, SHORT, found.organisations)
    assert (
        torch.corrcoef(torch.stack([(s - s.mean(1, keepdim=True)).flatten() for s in (found.tokens, naive)]))[0, 1]
        > 0.99
    )
    assert ablation(subject, SHORT, Effort()).tokens.isfinite().all()


def narrow(federate: Federate, architecture: str, kind: str) -> Subject:
    if kind == "nf4":
        return federate(architecture, quantisation="nf4")
    subject = federate(architecture)
    module = copy.deepcopy(subject.model.module)  # the other is everybody's
    for name, parameter in module.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    return replace(subject, model=replace(subject.model, module=module))


def test_attention_that_is_not_ours_is_refused(federate: Federate, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = federate()
    monkeypatch.setattr("llm.attention._NAME", "eager")
    with pytest.raises(ModelError, match="got that of LlamaForCausalLM"):
        gradient(subject, SHORT, Effort())


def test_a_decoder_of_another_build_is_refused(load_tiny: Callable[..., Model]) -> None:
    with pytest.raises(ModelError, match="expected a decoder like Llama's, got OPT"):
        residual_stream(load_tiny("opt"))
