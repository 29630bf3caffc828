"""The daemon of the embedded chains, as a process; tests/chain/test_nodes.py has what a node promises."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.chain

_FAILING_DAEMON = """
import sys
from pathlib import Path
from chain.devnet import daemon, service
def tell(*_):
    folder = Path(sys.argv[1])
    (folder / "part").write_text(f"free: {service.is_free(folder)}", "utf-8")
    (folder / "part").rename(folder / "seen")
sys.excepthook = tell
daemon.main()
"""


def test_whoever_waits_for_a_daemon_that_fails_can_read_why(tmp_path: Path) -> None:
    """It holds its lock until it has written: a free lock means that the log is complete."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", _FAILING_DAEMON, tmp_path, "--port", str(port)], check=False, capture_output=True
        )
        deadline = time.monotonic() + 60
        while not (tmp_path / "seen").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert done.returncode == 0
    assert (tmp_path / "seen").read_text("utf-8") == "free: False"
