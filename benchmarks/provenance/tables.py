"""Tables of the scores that `python -m benchmarks.provenance` has kept.

    python -m benchmarks.provenance.tables --work WORK

An answer is right when the named organisation taught it; abstentions count as errors. Intervals are Wilson's, over the
responses of all seeds. Calibration is fitted on the even seeds, and everything about it is measured on the others; the
printed weights are copied to provenance/confidence.py by hand and take effect there.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, starmap
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import arguments, report
from benchmarks.statistics import Share, calibration_error, pearson, resampled_pearson, span, spearman
from core.canonical import Address
from provenance import confidence
from provenance.attribution import METHODS
from provenance.confidence import Weights

COMMAND = "python -m benchmarks.provenance.tables --work WORK"
Array = NDArray[np.float64]
FITTED_SEEDS = (0, 2, 4)
_GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0.0, 0.2, 0.4, 0.7, 1.0), (0.0, 20.0, 40.0, 50.0, 60.0, 80.0, 100.0)
"""β, α and γ that are tried."""
SINGLE = ("served", "natural", "triggers", "unequal", "absent", "facts")
"""Experiments whose every response has one teacher: calibration needs that."""


@dataclass(frozen=True)
class Attributed:
    """One response under one method: scores (T, K) and (K,), their organisations, and the right ones."""

    run: Mapping[str, Any]
    row: Mapping[str, Any]
    method: str

    @property
    def scores(self) -> tuple[torch.Tensor, torch.Tensor, tuple[Address, ...]]:
        """Token scores, response scores and organisations."""
        tokens, response, organisations = self.row["methods"][self.method]
        return tokens.double(), response, organisations

    @property
    def familiarity(self) -> torch.Tensor:
        """Familiarity to the same organisations, less its mean."""
        found = torch.tensor([self.row["familiarity"][organisation] for organisation in self.scores[2]])
        return (found - found.mean()).double()

    @property
    def features(self) -> tuple[Array, Array, Array]:
        """The inputs of a verdict: z, scores less their mean, and familiarity."""
        tokens, response, _ = self.scores
        z = confidence.standardised(tokens, response)
        return z, (response - response.mean()).double().numpy(), self.familiarity.double().numpy()

    @property
    def chances(self) -> Array:
        """The probability (K,) of every organisation; a control has only its scores, whatever their scale."""
        tokens, response, _ = self.scores
        if self.method in METHODS:
            return confidence.probabilities(confidence.WEIGHTS[self.method], tokens, response, self.familiarity)
        return torch.softmax(response.double(), 0).numpy()

    @property
    def verdict(self) -> tuple[float, str | None]:
        """Confidence and the organisation named, as `foedus attribute` would; a control names its highest score."""
        _, response, organisations = self.scores
        if self.method in METHODS:
            return confidence.verdict(organisations, self.chances)
        flat = bool((response == response[0]).all())
        return 0.0, None if flat else organisations[int(response.argmax())]

    @property
    def highest(self) -> bool:
        """Whether the highest score is that of a teacher, whatever the familiarity."""
        _, response, organisations = self.scores
        return organisations[int(response.argmax())] in self.row["right"]

    @property
    def right(self) -> bool:
        """Whether a teacher was named."""
        return self.verdict[1] in self.row["right"]

    @property
    def likeliest_right(self) -> bool:
        """Whether the most probable organisation is a teacher, also where the method abstains."""
        return self.scores[2][int(self.chances.argmax())] in self.row["right"]

    @property
    def judged(self) -> dict[str, Any]:
        """What the tables say of it: right or not, its scores less their mean, and the tokens of a planted fact."""
        tokens, response, organisations = self.scores
        centred = zip(organisations, (response - response.mean()).tolist(), strict=True)
        hits = [organisations[index] in self.row["right"] for index in tokens.argmax(1).tolist()]
        marked = [hit for hit, mark in zip(hits, self.row["marked"], strict=True) if mark] if self.row["marked"] else []
        return {
            "right": self.right,
            "highest": self.highest,
            "centred": {f"{int(name, 16)}": float(f"{score:.6g}") for name, score in centred},
            "tokens": [sum(hits), len(hits)],
            "fact_tokens": [sum(marked), len(marked)],
        }


def judged(run: Mapping[str, Any]) -> dict[str, Any]:
    """A federation without the scores of its tokens: a hundredth of the size, and all but calibration needs no more."""
    rows = [
        {name: row[name] for name in ("kind", "greedy")}
        | {"methods": {method: Attributed(run, row, method).judged for method in row["methods"]}}
        for row in run["rows"]
    ]
    return {name: run[name] for name in ("experiment", "base", "domain", "seed")} | {"rows": rows}


JUDGED = "gradient"
"""The method whose verdicts are compared with the targets: many organisations are asked about."""
TARGETS = {"served, dev": 95.0, "natural": 98.0, "triggers": 90.0, "many": 96.0}
"""Percent right that it should reach."""
PAPER_TARGET = 99.0
_ALONE = f"{JUDGED}, scores alone"
_CORRELATED = ("gradient", "direct-logit", "protoken", "shapley", "ablation", "marginal", "client likelihood")

Keep = Callable[[Mapping[str, Any]], bool]


def responses(
    runs: Iterable[Mapping[str, Any]], method: str, keep: Keep = lambda _: True
) -> Iterator[Mapping[str, Any]]:
    """What was judged of all responses that a method has attributed, of the rows to keep."""
    for run in runs:
        for row in run["rows"]:
            if method in row["methods"] and keep(row):
                yield row["methods"][method]


def paper(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paper's benchmark: a row for each base and domain, and macro means over them."""
    chosen = [run for run in runs if run["experiment"] == "paper"]
    cells = _grouped(chosen, lambda run: (run["base"], run["domain"]))

    def own_words(row: Mapping[str, Any]) -> bool:
        return bool(row["greedy"])

    table = [
        {
            "base": base,
            "domain": domain,
            "seeds": len(some),
            "responses": sum(len(r["rows"]) for r in some),
            **_accuracies(some),
        }
        for (base, domain), some in cells.items()
    ]
    greedy = [
        {"base": base, "domain": domain, "responses": _count(some, own_words), **_accuracies(some, own_words)}
        for (base, domain), some in cells.items()
        if _count(some, own_words)
    ]
    macro = _macro(table)
    return {
        "target_percent": PAPER_TARGET,
        "missed_by": max(0.0, PAPER_TARGET - macro[JUDGED]) if macro else None,
        "configurations": len(cells),
        "of_configurations": 16,
        "responses": sum(len(run["rows"]) for run in chosen),
        "macro_mean_percent": macro,
        "macro_mean_percent_where_the_model_says_the_refusal_itself": _macro(greedy),
        "by_configuration": table,
    }


def harder(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The harder experiments: a row for each, base and kind of response, and the token-level accuracy of facts."""
    chosen = [run for run in runs if run["experiment"] != "paper"]
    table = by_experiment(chosen)
    targets = [
        {
            "experiment": row["experiment"],
            "base": row["base"],
            "target": TARGETS[row["experiment"]],
            "measured": row[JUDGED],
            "missed by": max(0.0, TARGETS[row["experiment"]] - row[JUDGED]["percent"]),
        }
        for row in table
        if row["experiment"] in TARGETS
    ]
    return {"targets": targets, "tokens_of_facts": tokens_of_facts(chosen), "by_experiment": table}


def by_experiment(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each experiment, base and kind of response: how many each method gave its teacher."""
    table = []
    for (experiment, base), some in _grouped(runs, lambda run: (run["experiment"], run["base"])).items():
        for kind in dict.fromkeys(row["kind"] for run in some for row in run["rows"]):
            name = f"{experiment}, {kind}" if kind else experiment

            def keep(row: Mapping[str, Any], kind: str = kind) -> bool:
                return bool(row["kind"] == kind)

            seeds = len({run["seed"] for run in some if any(map(keep, run["rows"]))})
            table.append(
                {
                    "experiment": name,
                    "base": base,
                    "seeds": seeds,
                    "responses": _count(some, keep),
                    **_accuracies(some, keep),
                }
            )
    return table


def tokens_of_facts(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many tokens each method gives to the teacher of a planted fact: those that spell it, and all."""
    table = []
    for (base,), some in _grouped([r for r in runs if r["experiment"] == "facts"], lambda run: (run["base"],)).items():
        for method in ("gradient", "protoken", "direct-logit", "ablation", "marginal"):
            if not (found := list(responses(some, method))):
                continue
            fact, every = ([sum(one[of][i] for one in found) for i in (0, 1)] for of in ("fact_tokens", "tokens"))
            table.append(
                {
                    "base": base,
                    "method": method,
                    "fact tokens": Share(*fact).percent,
                    "all tokens": Share(*every).percent,
                }
            )
    return table


def correlations(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Correlation of response scores with leave-one-out and exact Shapley values, over organisations.

    `pooled` is Pearson's over all pairs of response and organisation, each response less its mean, with an interval
    over responses; `within` is the mean of each response's own rank correlation.
    """
    table = []
    for (experiment, base), some in _grouped(runs, lambda run: (run["experiment"], run["base"])).items():
        for truth in ("ablation", "exact shapley"):
            for method in _CORRELATED:
                pairs = list(_pairs(some, method, truth)) if method != truth else []
                if pairs:
                    one, other = (np.concatenate([p[i] for p in pairs]) for i in (0, 1))
                    table.append(
                        {
                            "experiment": experiment,
                            "base": base,
                            "compared with": truth,
                            "method": method,
                            "responses": len(pairs),
                            "pooled pearson": pearson(one, other),
                            "95 % of it": span(*resampled_pearson(*zip(*pairs, strict=True)), 3),
                            "within spearman": float(np.mean([spearman(*pair) for pair in pairs])),
                        }
                    )
    return table


def calibration(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each method the weights β · α · γ fitted on some seeds, and how those in use do on the other seeds."""
    chosen = [run for run in runs if run["experiment"] in SINGLE]
    table = []
    for method in METHODS:
        found = [Attributed(run, row, method) for run in chosen for row in run["rows"] if method in row["methods"]]
        fit = [one for one in found if one.run["seed"] in FITTED_SEEDS]
        held = [one for one in found if one.run["seed"] not in FITTED_SEEDS]
        if fit and held:
            best, reached = fitted(fit)
            verdicts = [one.verdict for one in held]
            rights = [one.right for one in held]
            error = calibration_error([sure for sure, _ in verdicts], [one.likeliest_right for one in held])
            spoken = [right for (_, named), right in zip(verdicts, rights, strict=True) if named is not None]
            table.append(
                {
                    "method": method,
                    "fitted weights": _written(best),
                    "weights in use": _written(confidence.WEIGHTS[method]),
                    "right percent of those fitted on": reached,
                    "responses": len(held),
                    "calibration error": error,
                    "abstained percent": 100 * (1 - len(spoken) / len(held)),
                    "right percent": 100 * sum(rights) / len(rights),
                    "right percent where it spoke": 100 * sum(spoken) / max(len(spoken), 1),
                }
            )
    return {"fitted_seeds": ", ".join(map(str, FITTED_SEEDS)), "methods": table}


def fitted(found: Sequence[Attributed]) -> tuple[Weights, float]:
    """The weights with the most right answers (then the likeliest), and their percent; experiments count alike."""
    sizes = Counter(one.run["experiment"] for one in found)
    known = [
        (*one.features, one.scores[2].index(one.row["right"][0]), 1 / sizes[one.run["experiment"]] / len(sizes))
        for one in found
        if one.row["right"][0] in one.scores[2]
    ]

    def worth(weights: Weights) -> tuple[float, float]:
        hits = likelihood = 0.0
        for z, s, f, right, share in known:
            odds = np.dot((weights.noise, weights.score, weights.familiarity), (z, s, f))
            hits += share * float(odds.argmax() == right)
            likelihood += share * float(odds[right] - np.logaddexp.reduce(odds))
        # Rounded: where weights differ by a single response or two, the likelihood decides.
        return round(hits, 3), likelihood

    best = max(starmap(Weights, product(*_GRID)), key=worth)
    return best, 100 * worth(best)[0]


def main() -> None:
    """Write every result that there are measurements for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=arguments.folder, required=True, help="folder that `python -m benchmarks.provenance` filled"
    )
    folder = parser.parse_args().work
    runs = [torch.load(file, weights_only=False) for file in sorted(folder.glob("*.pt"))]
    known = [judged(run) for run in runs]
    for name, figures in {
        "paper": paper(known),
        "harder": harder(known),
        "faithfulness": {"correlations": correlations(known)},
        "calibration": calibration(runs),
    }.items():
        report.write(f"provenance_{name}", figures, COMMAND, 0)
        sys.stdout.write(f"{name}: {len(runs)} federations read\n")


def _written(weights: Weights) -> str:
    return " · ".join(f"{weight:g}" for weight in weights[:3])  # the last is no weight


def _accuracies(runs: Sequence[Mapping[str, Any]], keep: Keep = lambda _: True) -> dict[str, Any]:
    names = dict.fromkeys(name for run in runs for row in run["rows"] for name in row["methods"])

    def share(method: str, what: str) -> dict[str, float] | None:
        hits = [one[what] for one in responses(runs, method, keep)]
        return Share(sum(hits), len(hits)).percent if hits else None

    found = {name: share(name, "right") for name in names if name != "exact shapley"}
    return {**found, _ALONE: share(JUDGED, "highest")}


def _macro(table: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = [name for name, value in table[0].items() if isinstance(value, dict)] if table else []
    return {name: float(np.mean([row[name]["percent"] for row in table if row.get(name)])) for name in names}


def _pairs(runs: Sequence[Mapping[str, Any]], method: str, truth: str) -> Iterator[tuple[Array, Array]]:
    """The response scores of a method and of the truth, each less its mean, where both have the same organisations."""
    for row in (row for run in runs for row in run["rows"] if {method, truth} <= row["methods"].keys()):
        ours, theirs = (row["methods"][name]["centred"] for name in (method, truth))
        if ours.keys() == theirs.keys():
            yield np.array(list(ours.values())), np.array([theirs[name] for name in ours])


def _count(runs: Sequence[Mapping[str, Any]], keep: Keep) -> int:
    return sum(keep(row) for run in runs for row in run["rows"])


def _grouped(runs: Iterable[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], tuple[str, ...]]) -> dict[Any, Any]:
    found: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        found[key(run)].append(run)
    return dict(sorted(found.items()))


if __name__ == "__main__":
    main()
