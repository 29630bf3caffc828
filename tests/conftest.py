"""Settings of the whole suite: no telemetry, no look-ups, one thread, no deadlines for property tests, no process left.

Workers of pytest-xdist share nothing but the checkout: folders and the chains in them are below each worker's own base
folder, and ports are the system's choice.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

# Set before any library reads them: a test that reaches for the network would hang or fail offline.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# More threads would change bits (sums are split among them) and, beside other workers, cost time.
os.environ["OMP_NUM_THREADS"] = "1"

# Children of the tests inherit it: what a hang-up does to them is tested, under nohup as well.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("suite", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, which lies beside the checkout of whoever has it."""
    if not (folder := Path(__file__).parents[2] / "shared" / "data").is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_chain_outlives_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A chain's daemon outlives whoever started it, by design, and ends by itself only after minutes."""
    yield
    base = str(tmp_path_factory.getbasetemp())
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        # By its module: `python -m pytest --basetemp …` has such an argument as well, and would end itself.
        if "chain.devnet.daemon" in command and any(argument.startswith(base) for argument in command):
            process.terminate()
