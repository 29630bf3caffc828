import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.page import rendered
from benchmarks.plot import Curve, Panel, plot
from benchmarks.provenance.statistics import Share, calibration_error, pearson, resampled, spearman


def test_wilsons_interval() -> None:
    """Against the values of R's prop.test without continuity correction."""
    assert (Share(81, 263).low, Share(81, 263).high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert Share(10, 10).high == pytest.approx(1)
    assert Share(10, 10).low == pytest.approx(0.7225, abs=1e-4)


def test_correlations() -> None:
    one = np.array([1.0, 2.0, 3.0, 10.0])
    assert pearson(one, 2 * one + 1) == pytest.approx(1)
    assert spearman(one, -(one**3)) == pytest.approx(-1)
    assert pearson(one, np.ones(4)) == 0


def test_resampling_holds_the_correlation_between_its_ends() -> None:
    source = np.random.default_rng(1)
    values = [v - v.mean() for v in source.normal(size=(200, 6))]
    others = [v - v.mean() for v in np.array(values) + source.normal(size=(200, 6))]
    low, high = resampled(values, others)
    assert low < pearson(np.concatenate(values), np.concatenate(others)) < high
    assert low < math.sqrt(0.5) < high
    assert high - low < 0.1
    assert resampled(values, values) == pytest.approx((1, 1))


def test_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    assert calibration_error([0.95] * 20, [True] * 19 + [False]) == pytest.approx(0)
    assert calibration_error([0.95, 0.05], [False, False]) == pytest.approx(0.5)
    assert calibration_error([1.0], [True]) == 0


def test_a_plot_places_points_on_logarithmic_axes() -> None:
    picture = plot([Panel("x", "y", (Curve("a & b", ((1, 0.1), (10, 1), (100, 10))),))])
    points = picture.split('polyline points="')[1].split('"')[0].split()
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in points)
    assert math.isclose(x1 - x0, x2 - x1, abs_tol=0.2)
    assert math.isclose(y0 - y1, y1 - y2, abs_tol=0.2)
    assert "a &amp; b" in picture


def test_the_page_lays_lists_out_as_tables(tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text(
        '{"command": "run", "seed": 0, "hardware": {"processor": "p", "instruction_set": "i", "cores": 1,'
        ' "memory_gib": 1, "accelerator": null, "load_average": 0}, "versions": {},'
        ' "figures": {"all": {"percent": 99.0, "low": 97.0, "high": 99.5},'
        ' "rows": [{"name": "one", "hits": 3}, {"name": "two", "misses": 4}]}}',
        encoding="utf-8",
    )
    page = rendered("<!-- some -->\n<!-- end -->", "speed", tmp_path)
    assert "| all | 99.0 (97.0 to 99.5) |" in page
    assert "Rows:\n\n| name | hits | misses |\n|---|---|---|\n| one | 3 | not measured |" in page
