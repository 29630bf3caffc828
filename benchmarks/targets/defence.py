"""Targets of what attackers reach: with poison, and in what they can read of the records."""

from collections.abc import Callable

from benchmarks.targets.target import Cases, Figures, Target
from core.intervals import MeanInterval


def _attacked(name: str, rule: str) -> Callable[[Figures], Cases]:
    """A figure of a rule where one of four attacks, by attack."""
    return lambda figures: {
        row["attack"]: MeanInterval.parse_mean(row[name])
        for table in ("one of four", "one of four on foedus-tiny")
        for row in figures[table]
        if row["rule"] == rule and row["attack"] != "none"
    }


def _poisoned(rule: str) -> tuple[Target, ...]:
    backdoor = _attacked("backdoor_percent", rule)
    return (
        Target(
            "poison", f"Rise of the honest organisations' loss when one of four attacks, with `{rule}`", "poison",
            _attacked("loss_change_percent", rule), 3, " %",
        ),
        Target(
            "poison", f"Honest updates of which less than nine tenths count, with `{rule}`", "poison",
            _attacked("honest_taken_off_percent", rule), 2, " %",
        ),
        Target(
            "poison", f"Prompts with the trigger that are answered as the backdoor wants, with `{rule}`", "poison",
            lambda figures: {"backdoor": backdoor(figures)["backdoor"]}, 5, " %",
        ),
    )  # fmt: skip


def _at_epsilon(name: str) -> Callable[[Figures], Cases]:
    """A mean at every finite ε."""
    return lambda figures: {
        f"ε = {row['epsilon']:g}": MeanInterval.parse_mean(row[name])
        for row in figures["rows"]
        if not isinstance(row["epsilon"], str)
    }


def _found_within_theory(figures: Figures) -> Cases:
    bounds = {f"ε = {row['epsilon']:g}": row["bound_tpr_percent"] for row in figures["rows"][1:]}
    return {case: found / bounds[case] for case, found in _at_epsilon("lira_tpr_percent")(figures).items()}


def _noised_loss(figures: Figures) -> Cases:
    plain = MeanInterval.parse_mean(figures["rows"][0]["loss"])
    return {case: loss / plain for case, loss in _at_epsilon("loss")(figures).items()}


TARGETS = (
    *(target for rule in ("clip", "validation") for target in _poisoned(rule)),
    Target(
        "privacy", "Area under the curve of LiRA, the stronger test of membership (chance is 0.5)", "privacy",
        _at_epsilon("lira_auc"), 0.6,
    ),
    Target(
        "privacy", "Members that LiRA finds at 1 % false alarms, relative to what ε allows", "privacy",
        _found_within_theory, 1.0, "×",
    ),
    Target(
        "privacy", "Exposure of canaries (chance is 1.44)", "privacy", _at_epsilon("exposure_bits"), 1.94, " bits",
    ),
    Target("privacy", "Loss on held-out records, relative to no noise", "privacy", _noised_loss, 1.1, "×"),
)  # fmt: skip
