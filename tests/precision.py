"""How far two ways to the same number may lie apart: it follows from the precision, never from what one machine gave.

CPUs add float32 terms in different orders and widths. Each term is rounded to half a unit in the last place, so a sum
of n terms is off by at most n × ε × its magnitude (Higham 2002, section 4.2), ε = 2⁻²³ with room for both sides.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

EPSILON = torch.finfo(torch.float32).eps


def float32_error(magnitude: float, terms: int) -> float:
    """The largest difference, in the unit of `magnitude`, between two float32 sums of `terms` terms each."""
    return EPSILON * magnitude * terms


def up_to_rounding(expected: float, terms: int) -> Any:
    """Equal to every number that float32 may give for a sum of `terms` terms of the magnitude of `expected`."""
    return pytest.approx(expected, rel=0, abs=float32_error(abs(expected), terms))


def assert_equal_up_to_rounding(got: torch.Tensor, wanted: torch.Tensor, terms: int, unsure: float = 0.0) -> None:
    """Assert that no value is off by more than float32 loses in `terms` terms as large as the largest value.

    `unsure`: by how much what is wanted may itself be off.
    """
    wanted = wanted.double()
    error, magnitude = (got.double() - wanted).abs().max().item(), wanted.abs().max().item()
    most = float32_error(magnitude, terms) + unsure
    assert error <= most, f"off by {error:.1e} of {magnitude:.1e}, expected at most {most:.1e}"


def derivative(function: Callable[[float], torch.Tensor], step: float = 2e-3) -> tuple[torch.Tensor, float]:
    """The derivative at 0 of values that are computed in float64, and by how much it may be off.

    Richardson's extrapolation of central differences, R(h) = (4 D(h/2) − D(h)) / 3, has no error of order h². What is
    left of it is less than what halving the step once more changes. Rounding is far below: 1e-16 over the step.
    """
    values = {point: function(point) for h in (step, step / 2, step / 4) for point in (h, -h)}
    assert {value.dtype for value in values.values()} == {torch.float64}
    coarse, middle, fine = ((values[h] - values[-h]) / (2 * h) for h in (step, step / 2, step / 4))
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    return second, (second - first).abs().max().item()
