"""The targets that results are measured against, and whether they are met.

A target belongs to a topic (a page of docs/results), bounds figures of one result file from above or below, and may be
measured in several cases: it is met when every case meets it.
"""

from collections.abc import Callable, Iterator

from benchmarks.targets import agents, attribution, defence, learning, running, unlearning, wire
from benchmarks.targets.target import Figures, Row, Target

TARGETS = tuple(
    target for part in (learning, defence, wire, running, attribution, unlearning, agents) for target in part.TARGETS
)


def rows(results: Callable[[str], Figures | None]) -> Iterator[Row]:
    """A row for every target; `results` reads the figures of a result file, None where there is no such file.

    Without figures it says "not measured", unless they hold the limit, too.
    """
    for target in TARGETS:
        figures = results(target.result)
        if figures is not None:
            yield _row(target, figures)
        elif not callable(target.limit):
            yield Row(target.topic, target.claim, target.limit, {}, target.unit, target.at_least)
    yield from attribution.of_questions(results("provenance_harder"))
    yield from unlearning.of_erasure(results("unlearning_targets"))


def _row(target: Target, figures: Figures) -> Row:
    """The target's row; ends the process, with the result's name, where figures are missing."""
    try:
        return target.row(figures)
    except (LookupError, ValueError, RuntimeError) as error:
        place = f"{target.result}.json: expected the figures of {target.claim!r}"
        raise SystemExit(f"{place}, got a result without them ({error!r}): measure it to its end") from error
