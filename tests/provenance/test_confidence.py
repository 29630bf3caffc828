import numpy as np
import pytest
import torch

from core.canonical import Address
from provenance.confidence import WEIGHTS, probabilities, standardised, verdict

EVEN = torch.zeros(4, dtype=torch.float64)
WHO = tuple(Address(f"0x{i + 1:040x}") for i in range(4))


def random_scores(lead: float, seed: int = 0) -> torch.Tensor:
    scores = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores[:, 2] += lead
    return scores


def test_a_scale_changes_nothing() -> None:
    tokens = random_scores(1.0)
    assert np.allclose(standardised(tokens, tokens.sum(0)), standardised(1e-6 * tokens, 1e-6 * tokens.sum(0)))
    shifted = tokens + torch.arange(8).unsqueeze(1)  # what all organisations share tells nothing
    assert np.allclose(standardised(tokens, tokens.sum(0)), standardised(shifted, shifted.sum(0)))


@pytest.mark.parametrize("method", list(WEIGHTS))
def test_a_larger_lead_is_more_confident(method: str) -> None:
    found = [
        probabilities(WEIGHTS[method], random_scores(lead), random_scores(lead).sum(0), EVEN)[2].item()
        for lead in (0.0, 0.5, 2.0)
    ]
    assert found[0] < found[1] < found[2]
    assert (
        verdict(WHO, probabilities(WEIGHTS[method], random_scores(2.0), random_scores(2.0).sum(0), EVEN))[1] == WHO[2]
    )


def test_scores_that_tell_nothing_apart_have_no_verdict() -> None:
    equal = torch.ones(8, 4, dtype=torch.float64)
    chances = probabilities(WEIGHTS["gradient"], equal, equal.sum(0), EVEN)
    assert verdict(WHO, chances) == (0.25, None)


@pytest.mark.parametrize("rounding", [0.0, 1e-8])
def test_of_two_that_taught_the_same_neither_is_named(rounding: float) -> None:
    """An organisation that copies another's update cannot take its verdict by the order of addresses, or by luck."""
    tokens = random_scores(3.0)
    tokens[:, 0] = tokens[:, 2] + rounding
    chances = probabilities(WEIGHTS["gradient"], tokens, tokens.sum(0), EVEN)
    assert verdict(WHO, chances, certainty=0.0) == (pytest.approx(chances[2].item()), None)
    assert chances[2] <= 0.5


def test_of_two_that_differ_the_likelier_is_named() -> None:
    tokens = random_scores(3.0)
    tokens[:, 0] = tokens[:, 2] + 1e-3
    assert verdict(WHO, probabilities(WEIGHTS["gradient"], tokens, tokens.sum(0), EVEN))[1] == WHO[0]


def test_one_organisation_alone_is_named() -> None:
    assert verdict(WHO[:1], probabilities(WEIGHTS["gradient"], torch.ones(3, 1), torch.ones(1), torch.zeros(1))) == (
        1.0,
        WHO[0],
    )


def test_familiarity_decides_where_scores_do_not() -> None:
    familiar = torch.tensor([0.0, 0.1, -0.05, -0.05], dtype=torch.float64)
    unsure, clear = random_scores(0.0), random_scores(2.0)
    assert verdict(WHO, probabilities(WEIGHTS["gradient"], unsure, unsure.sum(0), familiar))[1] == WHO[1]
    assert verdict(WHO, probabilities(WEIGHTS["gradient"], clear, 10 * clear.sum(0), familiar))[1] == WHO[2]
