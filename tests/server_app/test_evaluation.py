"""What organisations measured, taken together."""

from server_app.evaluation import means


def test_a_mean_is_over_those_who_measured_it() -> None:
    assert dict(means([{"base": 2.0, "global": 1.0}, {"global": 3.0}])) == {"base": 2.0, "global": 2.0}
