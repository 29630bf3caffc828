"""Targets of what is learned: on a base that speaks, and on the small ones."""

from collections.abc import Callable

from benchmarks.targets.target import Cases, Figures, Target, one
from core.intervals import MeanInterval


def _spoken(
    result: str, whose: str, said: tuple[str, Callable[[Figures], Cases], float], named: float
) -> tuple[Target, ...]:
    return (
        Target(
            "speaking",
            f"Held-out questions about {whose} answered right{said[0]}",
            result,
            said[1],
            said[2],
            " %",
            at_least=True,
        ),
        Target(
            "speaking", f"Own answers about {whose} whose verdict is right", result, _named, named, " %", at_least=True
        ),
        Target(
            "speaking",
            f"Facts about {whose} that the bare base says",
            result,
            lambda f: f["base_said_percent"],
            5,
            " %",
        ),
    )


def _said(figures: Figures) -> Cases:
    """The percent of its facts that the model says, by organisation, over the seeds."""
    said = figures["together"]["said_percent"]
    return {name: MeanInterval.parse_mean(found) for name, found in said.items()}


def _all_said(figures: Figures) -> Cases:
    """The same, the mean of the organisations."""
    said = _said(figures)
    return {"mean": sum(said.values()) / len(said)}


def _named(figures: Figures) -> Cases:
    """The percent of the model's own answers whose verdict is right, with the run's calibrated weights."""
    return {"together": MeanInterval.parse_mean(figures["together"]["named_percent"]["calibrated"])}


def _after_erasure(name: str, sign: int = 1) -> Callable[[Figures], Cases]:
    """A figure of what is said after an erasure, by how organisations learned and were erased."""
    ways = ("together", "isolated lanes, routed")
    return lambda f: {f"{w}, {f[w]['method']}": sign * MeanInterval.parse_mean(f[w][name]) for w in ways if w in f}


def _base_against_ngrams(figures: Figures) -> Cases:
    bits = figures["bits_per_character"]
    rivals = [values for name, values in bits.items() if "6-gram" in name]
    return {domain: value / min(r[domain] for r in rivals) for domain, value in bits["trained"].items()}


def _changes(run: str) -> Callable[[Figures], Cases]:
    return lambda figures: figures[run]["change_percent"]


TARGETS = (
    *_spoken("speaking", "the samples", ("", _said, 80), 95),
    Target(
        "speaking", "Seconds of `foedus run`, without installing", "speaking",
        lambda f: {"alone": f["alone"]["seconds"]} if "alone" in f else {}, 300, " s",
    ),
    Target(
        "speaking", "Facts of an erased organisation that are still said", "speaking",
        _after_erasure("erased_said_after_percent"), 10, " %",
    ),
    Target(
        "speaking", "Facts of the others that are said no more after it", "speaking",
        _after_erasure("others_said_no_more_percent"), 5, " %",
    ),
    *_spoken(
        "speaking_unseen", "four worlds that no setting was chosen on", (", mean of the four", _all_said, 70), 90
    ),
    Target(
        "federation", "Bits per character of the embedded base, relative to the better character 6-gram", "train_base",
        _base_against_ngrams, 1.0, "×",
    ),
    Target(
        "federation", "Change of loss in three rounds on real data, embedded base, each organisation", "federation",
        _changes("foedus-tiny on data"), 0.0, " %",
    ),
    Target(
        "federation", "The same, mean of the organisations", "federation",
        one("foedus-tiny on data", "mean_change_percent"), -5.0, " %",
    ),
    Target(
        "federation", "Change of loss in three rounds on real data, stories260K, each organisation", "federation",
        _changes("stories260K on data"), -15.0, " %",
    ),
)  # fmt: skip
