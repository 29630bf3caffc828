"""Clocks of the benchmarks: wall time, and CPU time where other work on the machine must not count."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wall_timed(action: Callable[[], T]) -> tuple[T, float]:
    """The action's result and the seconds that it took by the clock on the wall."""
    started = time.perf_counter()
    return action(), time.perf_counter() - started


def cpu_timed(action: Callable[[], T]) -> tuple[T, float]:
    """The action's result and the process's CPU seconds; waiting for a disk counts for nothing."""
    started = time.process_time()
    return action(), time.process_time() - started
