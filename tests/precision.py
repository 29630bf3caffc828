"""How far two ways to the same number may lie apart: it follows from the precision, never from what one machine gave.

CPUs add float32 terms in different orders and widths. Each term is rounded to half a unit in the last place, so a sum
of n terms is off by at most n × ε × its magnitude (Higham 2002, section 4.2), ε = 2⁻²³ with room for both sides.
"""

import torch

EPSILON = torch.finfo(torch.float32).eps


def float32_error(magnitude: float, terms: int) -> float:
    """The largest difference, in the unit of `magnitude`, between two float32 sums of `terms` terms each."""
    return EPSILON * magnitude * terms


def assert_equal_up_to_rounding(got: torch.Tensor, wanted: torch.Tensor, terms: int) -> None:
    """Assert that no value is off by more than float32 loses in `terms` terms as large as the largest value."""
    wanted = wanted.double()
    error, magnitude = (got.double() - wanted).abs().max().item(), wanted.abs().max().item()
    assert error <= float32_error(magnitude, terms), f"off by {error:.1e} of {magnitude:.1e}"
