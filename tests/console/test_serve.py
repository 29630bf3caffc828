"""`foedus serve` as a process: what it prints, and how it ends."""

import json
import signal
import socket
import stat
import subprocess
import urllib.request
from pathlib import Path

import pytest

from core import keys
from tests.commands import PATIENCE_SECONDS, World, foedus, started
from tests.schemas import check_printed

pytestmark = pytest.mark.chain


def test_a_server_prints_where_it_is_and_ends_when_it_is_told_to(finished: World, tmp_path: Path) -> None:
    options = ("--port", 0, "--state", finished.state, "--token-file", tmp_path / "token", "--json")
    process = started("serve", *options, "--signing-key", tmp_path / "key")
    try:
        assert process.stdout
        line = process.stdout.readline()
        check_printed(["serve", "--json"], line)
        told = json.loads(line)
        with urllib.request.urlopen(f"{told['url']}/v1/models", timeout=PATIENCE_SECONDS) as response:  # noqa: S310
            assert [model["id"] for model in json.load(response)["data"]] == told["models"]
        assert told["url"].startswith("http://127.0.0.1:")
        assert told["signer"] == keys.read(tmp_path / "key").address
        assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert out == ""
    assert "Traceback" not in err
    assert isinstance(process, subprocess.Popen)


def test_a_port_that_is_taken_is_wrong_usage(finished: World, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = foedus("serve", "--port", port, "--state", finished.state, "--signing-key", tmp_path / "key")
    assert done.code == 2
    assert f"got {port}" in done.error


def test_a_run_that_is_not_there_is_wrong_usage(finished: World, tmp_path: Path) -> None:
    done = foedus("serve", "nobody", "--state", finished.state, "--signing-key", tmp_path / "key")
    assert done.code == 2
    assert "got 'nobody'" in done.error
