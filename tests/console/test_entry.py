"""The console script: a missing requirement is one line, and no command imports more than it needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import World, ended, started

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "flwr", "ray", "web3")
"""Seconds of imports, all but web3 for nothing where no model is needed."""


def imported(*arguments: object) -> set[str]:
    """The heavy packages that a command has imported when it ends."""
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('\\nHEAVY', *(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr))\n"
        "from console.entry import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("HEAVY")[2].split())


@pytest.mark.parametrize("arguments", ["--help", "keys --help", "status --help", "run --help", "keys new FILE"])
def test_what_needs_no_run_imports_nothing_heavy(arguments: str, tmp_path: Path) -> None:
    assert imported(*arguments.replace("FILE", str(tmp_path / "key")).split()) == set()


@pytest.mark.chain
def test_what_reads_a_run_imports_no_model(finished: World) -> None:
    state = ("--state", finished.state)
    assert imported("status", *state) == set()
    assert imported("status", "--agents", *state) == set()
    assert imported("verify", *state) <= {"web3"}
    proof = ("proof", "--organisation", "medical", "--round", 1, "--out", finished.state.parent / "proof.json")
    assert imported(*proof, *state) <= {"web3"}


def test_a_requirement_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')")
    done = ended(started("status", PYTHONPATH=str(tmp_path)))
    assert done.code == 2
    assert "'typer'" in done.error
    assert "requirements.txt" in done.error


@pytest.mark.parametrize("given", [{}, {"no_proxy": "intranet"}, {"NO_PROXY": "intranet"}])
def test_the_loopback_is_never_behind_a_proxy(given: dict[str, str]) -> None:
    script = (
        "import sys, urllib.request as r; sys.argv = ['foedus', '--help']\n"
        "from console.entry import main\n"
        "try: main()\n"
        "except SystemExit: print(r.proxy_bypass('127.0.0.1'), r.proxy_bypass('localhost'), r.proxy_bypass('intranet'))"
    )
    others = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    proxied = others | given | {"http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=proxied)
    *loopback, intranet = (word not in ("0", "False", "None") for word in done.stdout.splitlines()[-1].split())
    assert loopback == [True, True]
    assert intranet == bool(given)
