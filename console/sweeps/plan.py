"""The file of a sweep: what its runs have in common, what differs, and by which figure the best is chosen.

figure = "final-loss"            # or worst-loss, validation-loss, seconds: the lowest mean over the seeds is best
seeds = [7, 8, 9]
backend = "ray"                  # or inline
cpus = 2                         # of a trial; as many run at once as the machine or cluster has
gpus = 0.0
stop = "none"                    # asha or median: end trials whose validation loss lags behind
samples = 10                     # drawn from [random]

[settings]                       # of every trial, by their names in `foedus run --set`
rounds = 3

[grid]                           # every combination
aggregation = ["frozen-a", "fedavg"]

[random]                         # a list, or a range; `log`: evenly on a logarithmic scale
learning-rate = { low = 1e-4, high = 1e-2, log = true }
"""

import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from console.backends.federation import Backend
from console.settings import build
from core.canonical import digest, to_json
from core.config import RunConfig
from core.errors import ConfigError, FormatError, UsageError
from core.parsing import finite, typed

FIGURES = ("final-loss", "worst-loss", "validation-loss", "seconds")
"""The figures that a sweep can choose by; the lowest is the best."""
STOPS = ("none", "asha", "median")
MOST_TRIALS = 10_000
_DRAWN_BY = 0
"""The seed of what is drawn: the same file gives the same trials."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: the settings in which it differs from others, its seed, and all that the file gives."""

    varied: Settings
    seed: int
    settings: Settings

    @property
    def label(self) -> str:
        """What it varies, and its seed, in words."""
        return words(self.varied | {"seed": self.seed})

    @property
    def name(self) -> str:
        """A name that a trial of other settings does not have."""
        return digest("trial", to_json({name: repr(value) for name, value in self.settings.items()}))[2:14]


@dataclass(frozen=True)
class Sweep:
    """What a sweep's file says."""

    figure: str = "final-loss"
    seeds: tuple[int, ...] = (7,)
    backend: Backend = Backend.ray
    cpus: float = 1.0
    gpus: float = 0.0
    stop: str = "none"
    samples: int = 0
    settings: Settings = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    random: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a file; raises UsageError with its name."""
        with named(path):
            return cls.parse(tomllib.loads(path.expanduser().read_text(encoding="utf-8-sig")))

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """From a file's content; raises FormatError."""
        if unknown := sorted(set(data) - _OWN):
            raise FormatError(_no_key(unknown[0]))
        for name in ("settings", "grid", "random"):
            if not isinstance(data.get(name, {}), dict):
                raise FormatError(f"expected a table [{name}], got {data[name]!r:.80}")
        for name in ("grid", "random"):
            if not data.get(name, True):
                raise FormatError(f"[{name}]: expected a setting at least, got none")
        seeds = data.get("seeds", list(cls.seeds))
        if not isinstance(seeds, list) or not seeds or len(set(map(repr, seeds))) < len(seeds):
            raise FormatError(f"seeds: expected a list of different whole numbers, got {seeds!r:.80}")
        backend = data.get("backend", cls.backend.value)
        for name, value, among in (
            ("figure", data.get("figure", cls.figure), FIGURES),
            ("stop", data.get("stop", cls.stop), STOPS),
            ("backend", backend, tuple(one.value for one in Backend)),
        ):
            if value not in among:
                raise FormatError(f"{name}: expected {', '.join(among)}, got {value!r:.80}")
        found = typed(cls(**{**data, "seeds": tuple(seeds), "backend": Backend(backend)}))
        found.check()
        return found

    def check(self) -> None:
        """Raise FormatError for lists or ranges that are none, or for no trial, or too many."""
        for table, found in (("settings", self.settings), ("grid", self.grid), ("random", self.random)):
            if misplaced := sorted(_OWN & set(found)):
                raise FormatError(f"{misplaced[0]}: expected it above the first table, got it in [{table}]")
        for name, values in self.grid.items():
            if not isinstance(values, list) or not values:
                raise FormatError(f"[grid] {name}: expected a list of values, at least one, got {values!r:.80}")
        for name, values in self.random.items():
            _check_range(name, values)
        if clash := sorted({"seed"} & {*self.grid, *self.random, *self.settings}):
            raise FormatError(f"{clash[0]}: expected it as seeds = [...], got it among the settings")
        if twice := sorted((set(self.grid) & set(self.random)) | (set(self.settings) & {*self.grid, *self.random})):
            raise FormatError(f"{twice[0]}: expected it once, got it in two tables")
        if bool(self.random) != bool(self.samples):
            raise FormatError("expected samples = N and [random] together, got one of them")
        finite("cpus", self.cpus, 0.01)
        finite("gpus", self.gpus, 0)
        count = math.prod(map(len, self.grid.values())) * max(self.samples, 1) * len(self.seeds)
        if count > MOST_TRIALS:
            raise FormatError(f"expected at most {MOST_TRIALS:,} trials, got {count:,}")

    def trials(self) -> tuple[Trial, ...]:
        """Every trial, those that differ in the seed alone one after another.

        Raises ConfigError, DataError or ModelError for settings that no run would take, or under which `stop` would
        compare nothing.
        """
        found = []
        for varied in self._varied():
            for seed in self.seeds:
                given = self.settings | varied | {"seed": seed}
                # As a run reads them: of the right type, in their ranges, and paths absolute.
                read = build(given, (), None).to_flat()
                if self.stop != "none" and read["participation"] != "all":
                    raise ConfigError(
                        f"participation: expected all with stop {self.stop}, which compares rounds that ask everyone, "
                        f"got {read['participation']}"
                    )
                found.append(Trial(varied, seed, {name: read[name] for name in given}))
        return tuple(found)

    def _varied(self) -> Iterator[Settings]:
        """Every combination of the grid with every sample."""
        source = np.random.default_rng(_DRAWN_BY)
        samples = [{name: _drawn(values, source) for name, values in self.random.items()} for _ in range(self.samples)]
        for combination in itertools.product(*self.grid.values()):
            for sample in samples or [{}]:
                yield dict(zip(self.grid, combination, strict=True)) | sample


_OWN = frozenset(item.name for item in fields(Sweep))
"""What a file says of the sweep itself, and its tables."""


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Have whatever is wrong with a sweep's file say its name, as a UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"sweep {path}: expected a TOML file, got {error.strerror}") from error
    except (FormatError, UsageError, ValueError, RecursionError) as error:
        raise UsageError(f"sweep {path}: {error}") from error


def _no_key(name: str) -> str:
    """An error's text for a key that no sweep has: a run's setting belongs into a table."""
    if name in RunConfig().to_flat():
        return f"{name}: expected it in [settings], [grid] or [random], got it above them"
    return f"expected one of {', '.join(sorted(_OWN))}, got {name!r}"


def words(settings: Mapping[str, Any]) -> str:
    """Settings in one line."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


def _check_range(name: str, values: Any) -> None:
    if isinstance(values, list) and values:
        return
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= {"low", "high", "log"}:
        raise FormatError(f"[random] {name}: expected a list, or low and high, got {values!r:.80}")
    if type(values.get("log", False)) is not bool:
        raise FormatError(f"[random] {name}: expected log to be true or false, got {values['log']!r:.80}")
    low, high = (finite(f"[random] {name}: {end}", values[end]) for end in ("low", "high"))
    if not low < high or (values.get("log") and low <= 0):
        raise FormatError(f"[random] {name}: expected low below high, and above 0 with log, got {low:g} to {high:g}")
    if not math.isfinite(float(high) - float(low)):
        raise FormatError(f"[random] {name}: expected a range that numbers can span, got {low:g} to {high:g}")


def _drawn(values: Any, source: np.random.Generator) -> Any:
    """One of a list, or a number of a range: a whole one where both ends are whole."""
    if isinstance(values, list):
        return values[int(source.integers(len(values)))]
    low, high = values["low"], values["high"]
    if values.get("log"):
        drawn = math.exp(source.uniform(math.log(low), math.log(high)))
    else:
        drawn = float(source.uniform(low, high))
    return round(drawn) if isinstance(low, int) and isinstance(high, int) else drawn
