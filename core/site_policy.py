"""Site policy: what an organisation lets happen at its own site, whatever its coordinator asks.

It lies in policy.toml, beside node and signer, and both read it for every message: the node before it reads a record or
computes a step, the signer before it signs. A setting that is left out asks for nothing. What is refused, and why, is
told to the coordinator; `approve` holds updates until a person of the organisation has looked at them
(client_app/approvals.py).
"""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from core.canonical import Digest, raw
from core.config import RunConfig
from core.deployment import FolderSettings, check_above_zero
from core.errors import ConfigError, NotNowError, PolicyError
from core.genesis import Genesis
from core.ranges import fault
from core.robust import BOUNDS

APPROVALS = ("never", "first", "each")
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_DAY = 24 * 60


@dataclass(frozen=True)
class SiteTerms:
    """What a federation, founded or planned, asks of its members' sites; ε is infinite where none is counted."""

    base: Digest
    base_name: str
    rounds: int
    steps: int
    rank: int
    norm: float
    epsilon: float
    robust: str

    @classmethod
    def of(cls, genesis: Genesis) -> Self:
        """Those of a genesis."""
        training, privacy = genesis.training, genesis.privacy
        epsilon = privacy.epsilon if privacy else math.inf
        return cls(
            genesis.base.digest, genesis.base.name, training.rounds, training.local_steps, genesis.rank,
            genesis.norm_bound, epsilon, genesis.robust.rule,
        )  # fmt: skip

    @classmethod
    def planned(cls, config: RunConfig, base: Digest) -> Self:
        """Those of a run that would be founded with these settings, on a base of this digest."""
        epsilon = config.privacy.epsilon if config.privacy else math.inf
        return cls(
            base, config.base, config.rounds, config.local_steps, config.rank, config.norm_bound, epsilon, config.robust
        )


@dataclass(frozen=True)
class SitePolicy(FolderSettings):
    """policy.toml: what may happen at a site."""

    file = "policy.toml"

    bases: tuple[str, ...] | None = None
    """The base models that may be trained, each by digest or name. A name is the coordinator's word."""
    data_sets: tuple[str, ...] | None = None
    """The data sets that may be trained on, each by its name, or by the digest that `foedus doctor` prints."""
    most_rounds: int | None = None
    """The most rounds of a federation, those of calibrations after an erasure too."""
    most_steps: int | None = None
    """The most optimiser steps of a round."""
    most_rank: int | None = None
    """The largest rank."""
    most_norm: float | None = None
    """The largest norm that a federation may admit of an update."""
    most_epsilon: float | None = None
    """The largest privacy loss ε that a federation may allow; one that counts none is refused."""
    robust: tuple[str, ...] | None = None
    """The robust rules of which a federation must have one."""
    hours: tuple[str, ...] | None = None
    """The hours of the day in which the site takes part, as "22:00-06:00", by the machine's clock."""
    joins: tuple[str, ...] = ()
    """The federations that it may join after their founding, by genesis digest or run id; none without."""
    approve: str = "never"
    """Which updates are held for a person: never, the first of each federation, or each."""

    def __post_init__(self) -> None:
        """Raises ConfigError or FormatError for a value that would be read as something else than was meant."""
        # No base at all, or any? Whoever writes an empty list means the first, and leaving a line out is the second.
        for listed in ("bases", "data_sets", "robust", "hours"):
            if getattr(self, listed) == ():
                name = listed.replace("_", "-")
                raise ConfigError(f"{name}: expected at least one, or no line that begins with {name}, got none")
        for name in ("rounds", "steps", "rank"):
            most, setting = getattr(self, f"most_{name}"), "local_steps" if name == "steps" else name
            if most is not None and (wrong := fault(setting, most)):
                raise ConfigError(f"most-{name}: {wrong}")
        check_above_zero("most-norm", self.most_norm)
        check_above_zero("most-epsilon", self.most_epsilon)
        rules = [rule for rule in BOUNDS if rule != "none"]
        if strange := [rule for rule in self.robust or () if rule not in rules]:
            raise ConfigError(f"robust: expected rules among {', '.join(rules)}, got {strange[0]!r}")
        for window in self.hours or ():
            _ = minutes(window)
        for known_by_digest in (
            known for known in (*(self.bases or ()), *(self.data_sets or ()), *self.joins) if known.startswith("0x")
        ):
            raw(Digest(known_by_digest))
        if self.approve not in APPROVALS:
            raise ConfigError(f"approve: expected {', '.join(APPROVALS[:-1])} or {APPROVALS[-1]}, got {self.approve!r}")

    @classmethod
    def at(cls, path: Path | None) -> Self:
        """The one in a file, or one that allows everything; raises ConfigError for a file that is missing or wrong."""
        return cls.read_file(path) if path else cls(Path())

    def check_terms(self, terms: SiteTerms) -> None:
        """Raise PolicyError for a federation that asks for more than is allowed, or promises less."""
        if self.bases and not {terms.base, terms.base_name} & set(self.bases):
            _refuse("base", " or ".join(self.bases), f"{terms.base_name} with digest {terms.base}")
        for name, got in (("rounds", terms.rounds), ("steps", terms.steps), ("rank", terms.rank), ("norm", terms.norm)):
            self._check_most(name, got)
        # Infinite where no privacy loss is counted, which is what a bound asks for.
        self._check_most("epsilon", terms.epsilon)
        if self.robust and terms.robust not in self.robust:
            _refuse("robust", " or ".join(self.robust), terms.robust)

    def check_joining(self, genesis: Genesis) -> None:
        """Raise PolicyError for a federation that was founded without this site, and that it may not join."""
        # Whoever joins has not drawn the seed: a coordinator could found alone, with one that it likes.
        if not {genesis.digest, genesis.run} & set(self.joins):
            _refuse("joins", " or ".join(self.joins) or "none", f"{genesis.digest}, run {genesis.run}")

    def check_update(self, number: int, steps: int = 0, rank: int = 0) -> None:
        """Raise PolicyError for a round, or an update made in it, that is beyond what is allowed."""
        for name, got in (("rounds", number), ("steps", steps), ("rank", rank)):
            self._check_most(name, got)

    def check_data(self, name: str, digest: Callable[[], Digest]) -> None:
        """Raise PolicyError for a data set that may not be trained on; its digest is computed where one is named."""
        if not self.data_sets or name in self.data_sets:
            return
        if not any(known.startswith("0x") for known in self.data_sets) or digest() not in self.data_sets:
            # Their digests are the organisation's business.
            _refuse("data-sets", "one of those in its list", f"{name} as it is now")

    def check_hours(self, now: time.struct_time | None = None) -> None:
        """Raise NotNowError outside the hours of the day; `now` is the machine's time."""
        now = now or time.localtime()
        minute = 60 * now.tm_hour + now.tm_min
        # Over midnight where a window ends before it begins.
        within = [(minute - start) % _DAY < length for start, length in map(minutes, self.hours or ())]
        if self.hours and not any(within):
            got = f"{now.tm_hour:02}:{now.tm_min:02}"
            raise NotNowError(f"hours: expected {' or '.join(self.hours)}, as this site's policy allows, got {got}")

    def _check_most(self, name: str, got: float) -> None:
        most = getattr(self, f"most_{name}")
        if most is not None and got > most:
            _refuse(f"most-{name}", f"at most {most:g}", f"{got:g}")


def minutes(window: str) -> tuple[int, int]:
    """The minute of the day that begins a window, and how many it has; raises ConfigError for one that is none."""
    if not (match := _WINDOW.fullmatch(window)):
        raise ConfigError(f'hours: expected "HH:MM-HH:MM", got {window!r}')
    start, stop = (60 * int(match[i]) + int(match[i + 1]) for i in (1, 3))
    if stop > _DAY or start == stop:
        raise ConfigError(f"hours: expected an end up to 24:00 that is not the beginning, got {window!r}")
    return start, (stop - start) % _DAY or _DAY


def _refuse(what: str, expected: str, got: str) -> None:
    raise PolicyError(f"{what}: expected {expected}, as this site's policy allows, got {got}")
