"""A run that goes on from another's served adapter: what its genesis names, and the state that it begins with."""

from core import lora
from core.adapter import AdapterState
from core.aggregation import RULES
from core.errors import ConfigError
from core.genesis import Genesis, origin_fault
from core.origins import FormerRun
from core.storage.run_folder import RunFolder


def origin_of(former: RunFolder) -> FormerRun:
    """What a genesis names of a run; raises ConfigError for one without a round, or of several lanes.

    An adapter of another rule is no sum to go on with.
    """
    genesis = former.genesis
    if wrong := origin_fault(genesis.rule, genesis.lanes, "fp32"):
        raise ConfigError(f"from-run {former.name}: {wrong}")
    if not (line := former.served_line(0)):
        raise ConfigError(f"from-run {former.name}: expected a run that has closed a round, got none")
    record = line[-1].value
    return FormerRun(former.name, genesis.digest, record.digest, record.aggregate, genesis.shared_seed)


def check_descends(genesis: Genesis, former: Genesis) -> None:
    """Raise ConfigError for a run whose state is no sum, or of other adapters than the run that it goes on from."""
    if wrong := origin_fault(genesis.rule, genesis.lanes, genesis.wire):
        raise ConfigError(f"from-run {former.run}: {wrong}")
    for what in ("rank", "alpha", "rslora", "target_modules", "target_blocks"):
        if (got := getattr(genesis, what)) != (expected := getattr(former, what)):
            name = what.replace("_", "-")
            raise ConfigError(f"{name}: expected {expected!r}, as in run {former.run}, got {got!r}")
    for what, got, expected in (
        ("base", genesis.base.digest, former.base.digest),
        ("quantisation", genesis.base.quantisation, former.base.quantisation),
        ("shared A", genesis.shared_a, former.shared_a),
    ):
        if got != expected:
            raise ConfigError(f"{what}: expected {expected}, as in run {former.run}, got {got}")


def store_beginning(run: RunFolder, fresh: AdapterState, former: RunFolder | None) -> None:
    """Store what a run begins with, for its own readers: the shared A, and the state that a former run serves.

    Once more changes nothing.
    """
    if not RULES[run.genesis.rule].trains_a:
        run.artifacts.put(lora.factor(fresh, "A"))
    if former and (origin := run.genesis.origin):
        run.artifacts.put(former.artifacts.open(origin.state))
