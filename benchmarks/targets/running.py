"""Targets of what a run costs: with many organisations, in time and memory, on the chain and in the audit."""

from collections.abc import Callable, Mapping

from benchmarks.targets.target import Cases, Figures, Target, one


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


def _gpu(name: str) -> Callable[[Figures], Cases]:
    """A figure of every shape and precision where it could be measured."""
    return lambda figures: {c: f[name] for c, f in figures.items() if isinstance(f, Mapping) and name in f}


def _chains(name: str) -> Callable[[Figures], Cases]:
    """A figure of every kind of node."""
    return lambda figures: {c: values[name] for c, values in figures.items() if isinstance(values, Mapping)}


TARGETS = (
    Target(
        "scale", "Time of a round, relative to plain Flower with the same steps", "scale", _of_scale("ratio"),
        lambda figures: figures["target_ratio"], "×",
    ),
    Target("scale", "Memory of the coordinator, relative to that for ten organisations", "scale", _growth, 1.2, "×"),
    Target("scale", "Seconds of an audit", "scale", _of_scale("audit_seconds"), 60, " s"),
    Target(
        "scale", "Time of a sweep of eight runs, relative to the same runs one after another", "sweep",
        one("of_loop"), lambda f: f["most_of_loop"], "×",
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
        one("step", "overhead"), lambda f: f["target_overhead"], "×",
    ),
    Target(
        "speed", "Tokens a second of `foedus serve`, relative to transformers' `generate`", "serving",
        one("speed"), lambda f: f["least_speed"], "×", at_least=True,
    ),
    Target(
        "speed", "Time of an answer with the scores of its tokens, relative to one without", "serving",
        one("provenance"), lambda f: f["most_provenance"], "×",
    ),
    Target(
        "speed", "Bytes of a client round, relative to averaging A and B in float32", "traffic",
        one("both_to_peer"), 1 / 14, "×",
    ),
    Target(
        "speed", "A round of a deployment, relative to one with a process for every message", "rounds",
        one("ratio"), lambda f: f["target_ratio"], "×",
    ),
    Target(
        "speed", "A node's overhead on 300 million weights, relative to SmolLM2-135M", "node_overhead",
        one("ratio"), lambda f: f["target_ratio"], "×",
    ),
    Target(
        "speed", "Peak memory while admitting 100 updates of 20 MB", "aggregation",
        one("peak_admitting_updates"), 4, " updates",
    ),
    Target(
        "speed", "Peak memory while aggregating them", "aggregation", one("peak_aggregating_updates"), 4, " updates",
    ),
    Target(
        "speed", "Time to aggregate them, relative to reading and hashing their files", "aggregation",
        one("aggregate_to_read_and_hash"), 1.5, "×",
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
        one("seconds"), lambda f: f["limit_seconds"], " s",
    ),
    Target(
        "chain-and-audit", "Processor time of it, relative to four times that of a quarter of the rounds", "audit",
        one("growth"), 1.1, "×",
    ),
)  # fmt: skip
