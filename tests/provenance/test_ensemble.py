"""Attribution of independently trained lanes: an ensemble's mixture, and the lane that a prompt is routed to."""

from collections.abc import Callable

import pytest
import torch

from core.composition import Composition, Part
from core.errors import UsageError
from llm.batches import encode_prompt
from llm.evaluate import generate, route
from llm.model import Model
from provenance.attribution import METHODS, attribute, stream
from provenance.ensemble import EnsembleSubject
from provenance.method import Effort, Scores, Subject, base_logprobs, logprobs_of
from tests.precision import assert_equal_up_to_rounding, derivative
from tests.provenance.conftest import EXAMPLE, TERMS, federation, organisation
from tests.provenance.reference import in_float64, token_logprobs

SHARES = (0.3, 0.7)
PROMPT = "How many are two and three?"
MIXING = {"gradient", "ablation", "marginal"}

Make = Callable[..., EnsembleSubject]


@pytest.fixture
def ensemble(load_tiny: Callable[..., Model]) -> Make:
    """A lane of organisation 0, and one of 1 and 2."""

    def make(kind: str = "ensemble", second: tuple[int, ...] = (1, 2), seed: bytes = b"x") -> EnsembleSubject:
        model = load_tiny("llama", "none", 4)
        lanes = tuple(federation(model, rounds=(who, who), seed=seed) for who in ((0,), second))
        parts = tuple(Part(share, lane.adapter) for share, lane in zip(SHARES, lanes, strict=True))
        return EnsembleSubject(Composition(kind, parts), lanes)

    return make


def logprobs(lane: Subject, factor: float = 1.0) -> torch.Tensor:
    """Log p (T,) of the example in a lane whose adapter counts `factor` times."""
    lane.model.set_adapter(lane.adapter)
    with lane.model.scaled_adapter(factor):
        return logprobs_of(lane, EXAMPLE)


def mixture(subject: EnsembleSubject, *found: torch.Tensor) -> torch.Tensor:
    """Log Σ w p (T,), added up as probabilities."""
    return sum(share * values.exp() for share, values in zip(SHARES, found, strict=True)).log()  # type: ignore[union-attr]


def scores(subject: EnsembleSubject, method: str, exact: bool = False) -> Scores:
    return subject.scores(METHODS[method], EXAMPLE, Effort(exact=exact))


@pytest.mark.parametrize("seed", [b"x", b"y", b"z"])
def test_gradients_of_an_ensemble_are_those_of_its_mixture(ensemble: Make, seed: bytes) -> None:
    asked = ensemble(seed=seed)
    exact, own = scores(asked, "gradient", exact=True), scores(asked, "gradient")
    assert exact.organisations == tuple(map(organisation, (0, 1, 2)))
    first, second = (in_float64(lane) for lane in asked.lanes)

    def of_first(change: float) -> torch.Tensor:
        """The mixture's log p (T,) when the first lane's adapter counts by so much more."""
        for lane in (first, second):
            lane.model.set_adapter(lane.adapter)
        with torch.no_grad(), first.model.scaled_adapter(1 + change):
            return mixture(asked, token_logprobs(first, EXAMPLE), token_logprobs(second, EXAMPLE))

    wanted, unsure = derivative(of_first)
    terms = TERMS * len(asked.lanes)
    assert unsure < 1e-3 * wanted.abs().max()
    assert_equal_up_to_rounding(exact.tokens[:, 0], wanted, terms, unsure)
    for response in (exact.response[0], own.response[0]):  # the latter of all paths in one pass
        assert_equal_up_to_rounding(response, wanted.sum(), terms * len(wanted), unsure * len(wanted))
    assert_equal_up_to_rounding(own.response, exact.response, terms * len(wanted))
    assert_equal_up_to_rounding(own.logprobs, of_first(0.0), terms)


def test_what_the_lanes_score_is_weighed_by_their_responsibility(ensemble: Make) -> None:
    asked = ensemble()
    alone = torch.stack([logprobs(lane).exp() * share for lane, share in zip(asked.lanes, SHARES, strict=True)])
    responsible = alone / alone.sum(0)
    assert responsible[0].max() - responsible[0].min() > 0.2
    found = scores(asked, "gradient")
    for number, places in ((0, [0]), (1, [1, 2])):
        asked.model.set_adapter(asked.lanes[number].adapter)
        own = METHODS["gradient"].score(asked.lanes[number], EXAMPLE, Effort())
        wanted = responsible[number].unsqueeze(1) * own.tokens
        assert_equal_up_to_rounding(found.tokens[:, places], wanted, TERMS)


def test_leaving_one_out_of_an_ensemble_is_measured_on_the_mixture(ensemble: Make) -> None:
    asked = ensemble()
    found = scores(asked, "ablation")
    first, second = map(logprobs, asked.lanes)
    base = base_logprobs(asked.lanes[0], EXAMPLE)
    whole, without = mixture(asked, first, second), mixture(asked, base, second)
    torch.testing.assert_close(found.tokens[:, 0], whole - without, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.base, base)
    torch.testing.assert_close(found.response, found.tokens.sum(0))


def test_the_marginal_score_of_an_ensemble_asks_each_organisation_alone_in_its_lanes(ensemble: Make) -> None:
    asked = ensemble()
    found = scores(asked, "marginal")
    left_out, (first, _) = scores(asked, "ablation"), map(logprobs, asked.lanes)
    base = base_logprobs(asked.lanes[0], EXAMPLE)
    alone = mixture(asked, first, base) - base
    torch.testing.assert_close(found.tokens[:, 0], (left_out.tokens[:, 0] + alone) / 2, rtol=1e-3, atol=1e-4)
    assert (found.tokens[:, 1:] - left_out.tokens[:, 1:]).abs().max() > 1e-3
    torch.testing.assert_close(found.response, found.tokens.sum(0))


@pytest.mark.parametrize("method", ["ablation", "marginal"])
def test_a_mixture_reads_an_answer_as_often_as_its_lanes_by_themselves(ensemble: Make, method: str) -> None:
    asked, read = ensemble(), list[None]()
    with asked.model.module.get_base_model().register_forward_hook(lambda *_: read.append(None)):
        for lane in asked.lanes:
            METHODS[method].score(lane, EXAMPLE, Effort())
        alone = len(read)
        scores(asked, method)
    assert len(read) == 2 * alone > 0


@pytest.mark.parametrize("method", sorted(MIXING))
def test_an_organisation_of_several_lanes_has_one_score(ensemble: Make, method: str) -> None:
    asked = ensemble(second=(0, 1))
    found = scores(asked, method)
    assert found.organisations == (organisation(0), organisation(1))
    first, second = map(logprobs, asked.lanes)
    if method == "ablation":
        asked.model.set_adapter(asked.lanes[1].adapter)
        lost = METHODS["ablation"].score(asked.lanes[1], EXAMPLE, Effort()).tokens[:, 0]
        without = mixture(asked, base_logprobs(asked.lanes[0], EXAMPLE), second - lost)
        torch.testing.assert_close(found.tokens[:, 0], mixture(asked, first, second) - without, rtol=1e-3, atol=1e-4)
    assert torch.isfinite(found.tokens).all()


def test_familiarity_of_an_ensemble_is_compared_across_its_lanes(ensemble: Make) -> None:
    asked = ensemble()
    alone = torch.cat([lane.strength(EXAMPLE) for lane in asked.lanes])
    found = asked.familiarity(EXAMPLE, scores(asked, "gradient"))
    torch.testing.assert_close(found, alone - alone.mean())
    assert found.std() > 0


def test_an_ensemble_s_own_answer_is_attributed_with_its_base_and_residual(ensemble: Make) -> None:
    asked = ensemble()
    trace = attribute(asked, PROMPT, max_new_tokens=5)
    answer = generate(asked.model, asked.adapter, PROMPT, 5)
    assert tuple(token.token for token in trace.tokens) == tuple(t for t in answer if t not in asked.model.end_tokens)
    for token in trace.tokens:
        assert token.residual is not None
        assert token.base + sum(token.scores) + token.residual == pytest.approx(token.logprob)
    assert attribute(asked, PROMPT, max_new_tokens=5).digest == trace.digest


@pytest.mark.parametrize("method", sorted(set(METHODS) - MIXING))
def test_methods_that_look_into_one_network_say_nothing_of_an_ensemble(ensemble: Make, method: str) -> None:
    with pytest.raises(UsageError, match=f"'{method}' sees one adapter at a time, got an ensemble of 2"):
        scores(ensemble(), method)


@pytest.mark.parametrize("method", sorted(set(METHODS) - MIXING))
def test_whoever_asks_an_ensemble_by_another_method_is_told_those_that_know_mixtures(
    ensemble: Make, method: str
) -> None:
    with pytest.raises(UsageError, match=f"got '{method}'") as refused:
        attribute(ensemble(), PROMPT, "They.", method)
    assert {name for name in METHODS if name in str(refused.value).partition("got")[0]} == MIXING


def test_an_ensemble_is_not_attributed_while_it_generates(ensemble: Make) -> None:
    with pytest.raises(UsageError, match="cannot be attributed while it generates"):
        next(stream(ensemble(), PROMPT))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_routed_answer_is_attributed_to_the_lane_that_gave_it(ensemble: Make, method: str) -> None:
    asked = ensemble("routing")
    (chosen,) = route(asked.model, asked.adapter, [encode_prompt(asked.model.tokenizer, PROMPT)])
    trace = attribute(asked, PROMPT, "They.", method)
    assert trace.organisations == asked.lanes[chosen].organisations
    assert trace.tokens == attribute(asked.lanes[chosen], PROMPT, "They.", method).tokens


def test_a_routed_answer_streams_from_its_lane(ensemble: Make) -> None:
    asked = ensemble("routing")
    (chosen,) = route(asked.model, asked.adapter, [encode_prompt(asked.model.tokenizer, PROMPT)])
    assert list(stream(asked, PROMPT, 4)) == list(stream(asked.lanes[chosen], PROMPT, 4))
