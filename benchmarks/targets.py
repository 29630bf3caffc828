"""The targets that results are measured against, and whether they are met.

A target belongs to a topic (a page of docs/results), bounds figures of one result file from above or below, and may be
measured in several cases: it is met when every case meets it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from benchmarks.report import number
from core.intervals import MeanInterval

Figures = Mapping[str, Any]
Cases = Mapping[str, float]
"""What was measured, by case."""


@dataclass(frozen=True)
class Target:
    """A bound on a figure; `limit` is a number, or reads one from the figures. `unit` follows the numbers."""

    topic: str
    claim: str
    result: str
    cases: Callable[[Figures], Cases]
    limit: float | Callable[[Figures], float]
    unit: str = ""
    at_least: bool = False

    def row(self, figures: Figures) -> "Row":
        """The target beside what was measured."""
        limit = self.limit(figures) if callable(self.limit) else self.limit
        return Row(
            self.topic, self.claim, limit, self.cases(figures), self.unit, self.at_least, self.result in ON_SMOLLM2
        )


ON_SMOLLM2 = {
    "speaking", "speaking_unseen", "rules", "lds", "records", "provenance_speaking", "serving", "node_overhead",
    "unlearning_speaking",
}  # fmt: skip
"""The results that were measured on SmolLM2-135M-Instruct."""


@dataclass(frozen=True)
class Row:
    """A line of the table target / measured / met."""

    topic: str
    claim: str
    limit: float
    cases: Cases = field(default_factory=dict)
    unit: str = ""
    at_least: bool = False
    speaks: bool = False
    """Whether it was measured on a base that speaks."""

    @property
    def bound(self) -> str:
        """The limit as text."""
        return f"{'≥' if self.at_least else '≤'} {number(self.limit)}{self.unit}"

    @property
    def measured(self) -> str:
        """The value farthest from the target, and of how many cases it is the worst."""
        if not self.cases:
            return "not measured"
        case, value = (min if self.at_least else max)(self.cases.items(), key=lambda item: item[1])
        note = f" ({case}; worst of {len(self.cases)})" if len(self.cases) > 1 else ""
        return f"{number(value)}{self.unit}{note}"

    @property
    def met(self) -> str:
        """`yes`, `no`, or in how many cases."""
        if not self.cases:
            return "not measured"
        hits = [value >= self.limit if self.at_least else value <= self.limit for value in self.cases.values()]
        if all(hits):
            return "yes"
        return f"{sum(hits)} of {len(hits)}" if len(hits) > 1 else "no"


def rows(results: Callable[[str], Figures | None]) -> Iterator[Row]:
    """A row for every target; `results` reads the figures of a result file, None where there is no such file.

    Without figures it says "not measured", unless they hold the limit, too.
    """
    for target in TARGETS:
        figures = results(target.result)
        if figures is not None:
            yield target.row(figures)
        elif not callable(target.limit):
            yield Row(target.topic, target.claim, target.limit, {}, target.unit, target.at_least)
    yield from _of_questions(results("provenance_harder"))
    yield from _of_erasure(results("unlearning_targets"))


def _of_questions(figures: Figures | None) -> Iterator[Row]:
    for row in figures["targets"] if figures else ():
        cases = {row["base"]: row["measured"]["percent"]}
        claim = f"Responses attributed to the right organisation: {row['experiment']}"
        yield Row("attribution", claim, row["target"], cases, " %", at_least=True)


def _of_erasure(figures: Figures | None) -> Iterator[Row]:
    """The targets of the unlearning tasks: one row a target, its tasks the cases."""

    def key(row: Mapping[str, Any]) -> tuple[str, float]:
        return row["target"], row["at most"]

    for (claim, limit), some in groupby(sorted(figures["targets"], key=key) if figures else (), key):
        cases = {row["task"]: row["measured"] for row in some if row["measured"] is not None}
        yield Row("unlearning", f"{claim[0].upper()}{claim[1:]}", limit, cases)


def _one(*path: str) -> Callable[[Figures], Cases]:
    """The single figure at a path."""

    def read(figures: Figures) -> Cases:
        found: Any = figures
        for name in path:
            found = found[name]
        return {path[-1]: float(found)}

    return read


def _chains(name: str) -> Callable[[Figures], Cases]:
    """A figure of every kind of node."""
    return lambda figures: {c: values[name] for c, values in figures.items() if isinstance(values, Mapping)}


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


def _base_against_ngrams(figures: Figures) -> Cases:
    bits = figures["bits_per_character"]
    rivals = [values for name, values in bits.items() if "6-gram" in name]
    return {domain: value / min(r[domain] for r in rivals) for domain, value in bits["trained"].items()}


def _repaired(name: str) -> Callable[[Figures], Cases]:
    """The size of a figure of `repair`; none where too few seeds tell it."""

    def read(figures: Figures) -> Cases:
        (repair,) = (row for row in figures["methods"] if row["method"] == "repair")
        return {} if repair[name] is None else {"repair": abs(repair[name])}

    return read


def _changes(run: str) -> Callable[[Figures], Cases]:
    return lambda figures: figures[run]["change_percent"]


def _markets(figures: Figures) -> Iterator[tuple[str, Figures]]:
    """Every section with a table of policies."""
    return ((name, found) for name, found in figures.items() if isinstance(found, Mapping) and "policies" in found)


def _against(policy: str) -> Callable[[Figures], Cases]:
    """Cost to target of the agents, relative to a policy, in percent."""
    return lambda figures: {
        name: MeanInterval.parse_mean(row["cost_to_target_percent"])
        for name, market in _markets(figures)
        for row in market["against"]
        if (row["agents"], row["against"]) == ("q-learning", policy)
    }


def _against_ucb_among_eight(figures: Figures) -> Cases:
    name = "8 organisations"
    return {name: _against("ucb")(figures)[name]}


def _against_cheapest_among_32(figures: Figures) -> Cases:
    """Mean cost to target of the agents relative to the cheapest policy without knowledge of the market."""
    costs = _policies(figures["32 organisations"], "cost_to_target")
    rivals = [cost for name, cost in costs.items() if name not in ("q-learning", "oracle")]
    return {"32 organisations": 100 * (costs["q-learning"] / min(rivals) - 1)}


def _of_agents(name: str) -> Callable[[Figures], Cases]:
    """A figure of the agents."""
    return lambda figures: {case: _policies(market, name)["q-learning"] for case, market in _markets(figures)}


def _welfare_lead(figures: Figures) -> Cases:
    """Welfare of the agents over that of the best baseline without knowledge of the market, from 32 on."""
    found = {}
    for case, market in _markets(figures):
        welfare = _policies(market, "welfare")
        baselines = [v for name, v in welfare.items() if name not in ("q-learning", "oracle")]
        if case != "8 organisations":  # the target holds from 32 on
            found[case] = 100 * (welfare["q-learning"] / max(baselines) - 1)
    return found


def _policies(market: Figures, name: str) -> dict[str, float]:
    return {row["policy"]: MeanInterval.parse_mean(row[name]) for row in market["policies"]}


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


def _gpu(name: str) -> Callable[[Figures], Cases]:
    """A figure of every shape and precision where it could be measured."""
    return lambda figures: {c: f[name] for c, f in figures.items() if isinstance(f, Mapping) and name in f}


def _first_three(row: Mapping[str, Any]) -> bool:
    return bool(row["scored by"] == "fact" and row["among the first"] == 3)


def _attacked(name: str, rule: str) -> Callable[[Figures], Cases]:
    """A figure of a rule where one of four attacks, by attack."""
    return lambda figures: {
        row["attack"]: MeanInterval.parse_mean(row[name])
        for table in ("one of four", "one of four on foedus-tiny")
        for row in figures[table]
        if row["rule"] == rule and row["attack"] != "none"
    }


def _of_scale(figure: str) -> Callable[[Figures], Cases]:
    """A figure of every size from a hundred organisations on."""
    return lambda figures: {
        f"{row['organisations']:,} organisations": row[figure]
        for row in figures["sizes"]
        if row["organisations"] >= 100
    }


def _growth(figures: Figures) -> Cases:
    """The coordinator's memory at each size, relative to the smallest."""
    smallest, *larger = figures["sizes"]
    return {
        f"{row['organisations']:,} organisations": row["server_memory_mib"] / smallest["server_memory_mib"]
        for row in larger
    }


def _sweep(figures: Figures, kind: str) -> Figures:
    """The sweep whose kind begins with these words."""
    found: Figures = next(row for row in figures["sweeps"] if row["sweep"].startswith(kind))
    return found


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


def _spoken(
    result: str, whose: str, said: tuple[Callable[[Figures], Cases], float], named: float
) -> tuple[Target, ...]:
    return (
        Target(
            "speaking",
            f"Held-out questions about {whose} answered right",
            result,
            said[0],
            said[1],
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


def _by_default(experiment: str) -> Callable[[Figures], Cases]:
    """The percent of an experiment's responses that `ablation`, the default, gives their teacher."""
    return lambda figures: {
        row["base"]: row["ablation"]["percent"] for row in figures["by_experiment"] if row["experiment"] == experiment
    }


def _thousand_to_ten(figures: Figures) -> Cases:
    """CPU seconds of each method for a thousand organisations, relative to ten."""
    rows = {row["to"]: row for row in figures["growth"] if row["grows"] == "K"}
    return {name: rows[1000][name] / rows[10][name] for name in rows[10] if name not in {"grows", "to", "naive"}}


_PEERS = ("protoken", "client likelihood", "update norm", "random")


def _datamodeling(figures: Figures) -> Cases:
    """The mean score of each method."""
    return {row["method"]: MeanInterval.parse_mean(row["score"]) for row in figures["methods"]}


TARGETS = (
    *_spoken("speaking", "the samples", (_said, 80), 95),
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
        _after_erasure("others_change_points", -1), 5, " points",
    ),
    *_spoken("speaking_unseen", "four worlds that no setting was chosen on", (_all_said, 70), 90),
    *(target for rule in ("clip", "validation") for target in _poisoned(rule)),
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
        "wire", "The same after three rounds on a base that speaks", "rules", _compressed_speaking, 1, " %",
    ),
    Target(
        "wire", "Part of an organisation's round that goes into compressing", "wire",
        _compressed(lambda row: float(row["compressing_percent"])), 5, " %",
    ),
    Target(
        "scale", "Time of a round, relative to plain Flower with the same steps", "scale", _of_scale("ratio"),
        lambda figures: figures["target_ratio"], "×",
    ),
    Target("scale", "Memory of the coordinator, relative to that for ten organisations", "scale", _growth, 1.2, "×"),
    Target("scale", "Seconds of an audit", "scale", _of_scale("audit_seconds"), 60, " s"),
    Target(
        "scale", "Time of a sweep of eight runs, relative to the same runs one after another", "sweep",
        _one("of_loop"), lambda f: f["most_of_loop"], "×",
    ),
    Target(
        "scale", "Runs that end well in a sweep of eight of which one fails, killed half-way and resumed", "sweep",
        lambda f: {"killed": _sweep(f, "killed")["done"]}, 7, at_least=True,
    ),
    Target(
        "scale", "Loss of the best run of a sweep that stops early, relative to one that does not", "sweep",
        lambda f: {"ASHA": _sweep(f, "stopping")["its_loss"] / _sweep(f, "to its end")["its_loss"]}, 1.01, "×",
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
        _one("foedus-tiny on data", "mean_change_percent"), -5.0, " %",
    ),
    Target(
        "federation", "Change of loss in three rounds on real data, stories260K, each organisation", "federation",
        _changes("stories260K on data"), -15.0, " %",
    ),
    Target(
        "speed", "Tokens a second on a GPU, relative to bare PEFT with bitsandbytes on the same batches", "gpu",
        _gpu("times bare"), 1.3, "×", at_least=True,
    ),
    Target(
        "speed", "Overhead of a client round, relative to Flower's LLM template", "client_round",
        lambda f: {base: found["overhead_ratio"] for base, found in f["bases"].items()},
        lambda f: f["target_overhead_ratio"], "×",
    ),
    Target(
        "speed", "Overhead of an optimiser step, relative to a bare PEFT loop", "training_step",
        _one("step", "overhead"), lambda f: f["target_overhead"], "×",
    ),
    Target(
        "speed", "Tokens a second of `foedus serve`, relative to transformers' `generate`", "serving",
        _one("speed"), lambda f: f["least_speed"], "×", at_least=True,
    ),
    Target(
        "speed", "Time of an answer with the scores of its tokens, relative to one without", "serving",
        _one("provenance"), lambda f: f["most_provenance"], "×",
    ),
    Target(
        "speed", "Bytes of a client round, relative to averaging A and B in float32", "traffic",
        _one("both_to_peer"), 1 / 14, "×",
    ),
    Target(
        "speed", "A round of a deployment, relative to one with a process for every message", "rounds",
        _one("ratio"), lambda f: f["target_ratio"], "×",
    ),
    Target(
        "speed", "A node's overhead on 300 million weights, relative to SmolLM2-135M", "node_overhead",
        _one("ratio"), lambda f: f["target_ratio"], "×",
    ),
    Target(
        "speed", "Peak memory while admitting 100 updates of 20 MB", "aggregation",
        _one("peak_admitting_updates"), 4, " updates",
    ),
    Target(
        "speed", "Peak memory while aggregating them", "aggregation", _one("peak_aggregating_updates"), 4, " updates",
    ),
    Target(
        "speed", "Time to aggregate them, relative to reading and hashing their files", "aggregation",
        _one("aggregate_to_read_and_hash"), 1.5, "×",
    ),
    Target(
        "chain-and-audit", "Gas of a round's transaction, 1024 organisations", "chain",
        _chains("round_gas_1024"), lambda f: f["gas_limit"],
    ),
    Target(
        "chain-and-audit", "Longest wait of a round for the chain", "chain",
        _chains("longest_wait_ms_up"), lambda f: f["wait_limit_ms"], " ms",
    ),
    Target(
        "chain-and-audit", "Longest wait of a round while the chain is down", "chain",
        _chains("longest_wait_ms_down"), lambda f: f["wait_limit_ms"], " ms",
    ),
    Target(
        "chain-and-audit", "`foedus verify` over 1,000 rounds of 16 organisations", "audit",
        _one("seconds"), lambda f: f["limit_seconds"], " s",
    ),
    Target(
        "chain-and-audit", "Processor time of it, relative to four times that of a quarter of the rounds", "audit",
        _one("growth"), 1.1, "×",
    ),
    Target(
        "attribution", "Poisoned responses attributed by `gradient`, the benchmark of ProToken's paper",
        "provenance_paper", _one("macro_mean_percent", "gradient"), lambda f: f["target_percent"], " %", at_least=True,
    ),
    Target(
        "attribution", "Speed relative to ProToken as published, 6 organisations", "provenance_speed",
        lambda f: f["times_faster_than_naive"]["6_organisations"],
        lambda f: f["target_times_faster"]["6_organisations"], "×", at_least=True,
    ),
    Target(
        "attribution", "Speed relative to ProToken as published, 55 organisations", "provenance_speed",
        lambda f: f["times_faster_than_naive"]["55_organisations"],
        lambda f: f["target_times_faster"]["55_organisations"], "×", at_least=True,
    ),
    Target(
        "attribution", "Time of an attribution, relative to generating the answer", "provenance_speed",
        lambda f: f["against_generation"]["attribution_to_generation"], 1.0, "×",
    ),
    Target(
        "attribution", "Peak memory for 1,000 organisations, relative to 10", "provenance_speed",
        _one("peak_memory", "most_to_least"), 1.1, "×",
    ),
    Target(
        "attribution", "Time for 1,000 organisations, relative to 10", "provenance_speed", _thousand_to_ten, 3, "×",
    ),
    *(
        Target(
            "attribution", f"Responses attributed to the right organisation: {experiment}, on a base that speaks",
            "provenance_speaking", _by_default(experiment), least, " %", at_least=True,
        )
        for experiment, least in (("natural", 98), ("triggers", 99))
    ),
    Target(
        "attribution", "Linear datamodeling score over organisations, of `ablation`, the default method", "lds",
        lambda f: {"ablation": _datamodeling(f)["ablation"]}, 0.6, at_least=True,
    ),
    Target(
        "attribution", "The same, less the score of ProToken or of the best control", "lds",
        lambda f: {"ablation": _datamodeling(f)["ablation"] - max(_datamodeling(f)[name] for name in _PEERS)},
        0.0, at_least=True,
    ),
    Target(
        "attribution", "Facts of which a record that states it is among its organisation's first three", "records",
        lambda f: {r["scored by"]: MeanInterval.parse_mean(r["percent"]) for r in f["ranks"] if _first_three(r)},
        90, " %", at_least=True,
    ),
    Target(
        "attribution", "Time of scoring an organisation's records for an answer, relative to training on each once",
        "records", _one("times_an_epoch"), 1.0, "×",
    ),
    *(
        Target(
            "unlearning", f"Repair, {side} loss on a base that speaks: standard deviations from retraining",
            "unlearning_speaking", _repaired(f"{side} loss, deviations"), 2,
        )
        for side in ("forget", "retain")
    ),
    Target(
        "unlearning", "Repair, steps over retraining on a base that speaks", "unlearning_speaking",
        _repaired("steps over retraining"), 0.25, "×",
    ),
    Target(
        "unlearning", "Time of `remove` without the command around it", "unlearning_speed",
        lambda f: {n: v["exclusion_seconds"] for n, v in f.items() if isinstance(v, Mapping)},
        lambda f: f["target_exclusion_seconds"], " s",
    ),
    Target(
        "unlearning", "The same at lane size 1, relative to retraining", "unlearning_speed",
        _one("lane size 1", "exclusion_over_retraining"), lambda f: f["target_ratio_at_lane_size_1"], "×",
    ),
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
    Target(
        "agents", "Cost to target on the market among eight, relative to `ucb`", "agents",
        _against_ucb_among_eight, 5, " %",
    ),
    Target(
        "agents", "Cost to target on the market among 32, relative to the cheapest baseline", "agents",
        _against_cheapest_among_32, 0, " %",
    ),
    Target("agents", "Cost to target on the market, relative to `all`", "agents", _against("all"), -25, " %"),
    Target("agents", "Cost to target on the market, relative to Oort", "agents", _against("oort"), -10, " %"),
    Target(
        "agents", "Welfare on the market, relative to the best baseline, from 32 organisations on", "agents",
        _welfare_lead, 0, " %", at_least=True,
    ),
    Target(
        "agents", "Income of a free-rider on the market, relative to an honest organisation", "agents",
        _of_agents("rider_income_over_honest"), 0.1, "×",
    ),
    Target(
        "agents", "Share of honest organisations that lost more than their first round's cost, on the market", "agents",
        _of_agents("honest_lost_more_than_first_round_share"), 0.0,
    ),
    Target(
        "agents", "Share of honest organisations better off abstaining, on the market", "agents",
        _of_agents("honest_worse_than_abstaining_share"), 0.0,
    ),
    Target(
        "agents", "Cost to target in real rounds, relative to `all`", "agents_real",
        _against("all"), -25, " %",
    ),
    Target(
        "agents", "Cost to target in real rounds, relative to Oort", "agents_real",
        _against("oort"), -10, " %",
    ),
    Target(
        "agents", "Income of a free-rider in real rounds, relative to an honest organisation",
        "agents_real", _of_agents("rider_income_over_honest"), 0.1, "×",
    ),
    Target(
        "agents", "Share of honest organisations better off abstaining, in real rounds",
        "agents_real", _of_agents("honest_worse_than_abstaining_share"), 0.0,
    ),
)  # fmt: skip
