"""Charts are drawn from figures, show all of them, and are the same bytes each time."""

import json
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks import charts
from benchmarks.charts import FOLDER, Panel
from benchmarks.report import RESULTS


def drawn(name: str) -> tuple[Figure, dict[str, Any]]:
    result, chart = charts.CHARTS[name]
    figures = json.loads((RESULTS / f"{result}.json").read_text(encoding="utf-8"))["figures"]
    return chart(figures), figures


@pytest.mark.parametrize("name", charts.CHARTS)
def test_a_chart_is_the_same_bytes_each_time_and_tells_no_date(name: str) -> None:
    first, second = (charts.svg(drawn(name)[0]) for _ in range(2))
    assert first == second
    assert "dc:date" not in first
    assert (FOLDER / f"{name}.svg").is_file()


def test_the_growth_chart_has_every_measured_point() -> None:
    figure, figures = drawn("provenance-growth")
    for axes, grows in zip(figure.axes, ("K", "T", "depth"), strict=True):
        rows = [row for row in figures["growth"] if row["grows"] == grows]
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert lines.keys() == {"gradient", "direct-logit", "protoken", "naive"}
        for method, line in lines.items():
            expected = [(row["to"], row[method]) for row in rows if row[method] is not None]
            assert [*zip(line.get_xdata(), line.get_ydata(), strict=True)] == expected
        assert [tick.get_text() for tick in axes.get_xticklabels()] == [str(row["to"]) for row in rows]
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_the_agents_chart_ends_at_the_losses_and_costs_of_the_table() -> None:
    figure, figures = drawn("agents-real")
    by_round, by_cost = figure.axes
    table = {row["policy"]: row for row in figures["real"]["policies"]}
    for axes in (by_round, by_cost):
        for line in axes.get_lines():
            final = float(table[line.get_label()]["final_loss"].split()[0])
            assert line.get_ydata()[-1] == pytest.approx(final, abs=2e-3)
    for line in by_cost.get_lines():
        assert line.get_xdata()[-1] == pytest.approx(float(table[line.get_label()]["total_cost"].split()[0]), abs=0.02)


def test_the_scale_chart_has_every_size() -> None:
    figure, figures = drawn("scale")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    sizes = [row["organisations"] for row in figures["sizes"]]
    assert all([*line.get_xdata()] == sizes for line in lines.values())
    each = [row["seconds_a_round"] / row["asked"] for row in figures["sizes"]]
    assert [*lines["a round, each asked"].get_ydata()] == each
    assert len(lines) == 4


def test_lines_of_one_name_have_one_colour_and_one_entry_in_the_legend() -> None:
    figure = charts.draw(
        [Panel("x", {"a & b": [(1, 1), (2, 2)]}), Panel("z", {"c": [(1, 3)], "a & b": [(1, 2)]})],
        "y",
        logarithmic=False,
    )
    first, second = figure.axes
    assert first.get_lines()[0].get_color() == second.get_lines()[1].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a & b", "c"]
    assert "a &amp; b" in charts.svg(figure)
