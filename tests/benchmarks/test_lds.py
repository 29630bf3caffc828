"""The linear datamodeling score over organisations."""

from benchmarks.lds import SUBSETS, halves, scores


def test_halves_are_different_and_of_half_the_organisations() -> None:
    found = halves(8, 7)
    assert len({tuple(half) for half in found}) == SUBSETS
    assert all(len(set(half)) == 4 and set(half) < set(range(8)) for half in found)
    assert found == halves(8, 7) != halves(8, 8)


def test_a_method_that_foretells_the_order_scores_one_and_its_opposite_minus_one() -> None:
    subsets = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    taught, idle = [9.0, 3.0, 1.0, 0.5], [0.0] * 4
    real = [[sum(taught[index] for index in subset) ** 3, float(place)] for place, subset in enumerate(subsets)]
    assert scores(subsets, real, [taught, idle]) == [1.0, 0.0]  # by ranks; what foretells nothing scores nothing
    assert scores(subsets, real, [[-value for value in taught], idle])[0] == -1.0
