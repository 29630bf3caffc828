"""Targets of the forms in which updates travel."""

from collections.abc import Callable, Mapping

from benchmarks.targets.target import Cases, Figures, Target
from core.intervals import MeanInterval


def _sent(wire: str, way: str) -> Callable[[Figures], Cases]:
    """Times fewer bytes that a form takes one way, by base."""
    return lambda figures: {
        title: row[f"{way}_times"]
        for title in ("forms", "a model of 7 billion parameters")
        for row in figures.get(title, ())
        if row["wire"] == wire
    }


def _compressed(read: Callable[[Figures], float]) -> Callable[[Figures], Cases]:
    """A figure of each form that compresses."""
    return lambda figures: {row["wire"]: read(row) for row in figures.get("forms", ()) if row["wire"] != "fp32"}


def _compressed_speaking(figures: Figures) -> Cases:
    """The change of the final loss of each form that compresses, against fp32 with the same rule, in percent."""

    def loss(row: Mapping[str, str]) -> float:
        return MeanInterval.parse_mean(row["final loss"])

    compressed = [row for row in figures["rules"] if row["wire"] != "fp32"]
    alike = ("rule", "rate", "lanes")
    plain = {tuple(row[name] for name in alike): row for row in figures["rules"] if row["wire"] == "fp32"}
    return {row["wire"]: 100 * (loss(row) / loss(plain[tuple(row[n] for n in alike)]) - 1) for row in compressed}


TARGETS = (
    *(
        Target(
            "wire", f"Times fewer bytes {way} in {wire} than A and B averaged in fp32", "wire", _sent(wire, way),
            least, "×", at_least=True,
        )
        for wire, way, least in (
            ("int8", "up", 7), ("int8", "down", 7), ("nf4", "up", 14), ("nf4", "down", 14), ("sparse", "up", 60),
            ("sparse", "down", 14),
        )
    ),
    Target(
        "wire", "Change of the final loss against fp32", "wire",
        _compressed(lambda row: MeanInterval.parse_mean(row["loss_change_percent"])), 1, " %",
    ),
    Target(
        "wire", "Change of the final loss against fp32, three rounds on a base that speaks", "rules",
        _compressed_speaking, 1, " %",
    ),
    Target(
        "wire", "Part of an organisation's round that goes into compressing", "wire",
        _compressed(lambda row: float(row["compressing_percent"])), 5, " %",
    ),
)  # fmt: skip
