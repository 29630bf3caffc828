"""How tests wait: until something holds, and never for a time that ought to be enough."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 300.0
"""For processes on a busy machine; only a failure ever waits so long."""


def until(holds: Callable[[], object]) -> None:
    """Return once it holds; fails after `PATIENCE_SECONDS`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)
