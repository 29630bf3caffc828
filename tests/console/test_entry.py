"""The console script: a missing requirement is one line, and no command imports more than it needs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core import keys
from tests.commands import World, ended, started

HEAVY = (
    "torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "flwr", "ray", "web3", "eth_account",
    "requests", "aiohttp", "grpc", "pandas", "scipy",
)  # fmt: skip
"""Tenths of seconds to seconds of imports, for nothing where no model, node or chain is asked."""


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


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "keys --help", "status --help", "members --help", "run --help", "keys new FILE"],
)
def test_what_needs_no_run_imports_nothing_heavy(arguments: str, tmp_path: Path) -> None:
    assert imported(*arguments.replace("FILE", str(tmp_path / "key")).split()) == set()


def test_the_list_of_commands_imports_no_array() -> None:
    code = "import sys; from console.cli import run_command; run_command(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "eth_keys", "rich"} & set(done.stdout.splitlines()[-1].split())


def test_what_shows_a_key_imports_nothing_heavy(tmp_path: Path) -> None:
    keys.create(tmp_path / "key")
    assert imported("keys", "show", tmp_path / "key") == set()


def test_the_help_of_no_command_imports_a_model() -> None:
    models = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "ray"}
    code = "import sys; from console.cli import commands; list(commands()); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not models & set(done.stdout.split())


@pytest.mark.chain
def test_what_reads_a_run_imports_no_model(finished: World) -> None:
    state = ("--state", finished.state)
    assert imported("status", *state) == set()
    assert imported("status", "--agents", *state) == set()
    chain = {"web3", "eth_account", "requests", "aiohttp"}
    assert imported("verify", *state) <= chain
    proof = ("proof", "--organisation", "medical", "--round", 1, "--out", finished.state.parent / "proof.json")
    assert imported(*proof, *state) <= chain


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


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "https_proxy", "HTTP_PROXY"])
@pytest.mark.parametrize(("lacking", "code"), [("socksio socks", 2), ("socks", 2), ("", 0)])
def test_a_socks_proxy_is_refused_in_one_line_where_the_packages_for_it_are_missing(
    name: str, lacking: str, code: int
) -> None:
    script = (
        "import sys; import console.cli as cli, console.entry as entry\n"
        f"cli.run_command = lambda: 0; entry.find_spec = lambda module: None if module in {lacking.split()} else 1\n"
        "entry.main()"
    )
    others = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    proxied = others | {name: "socks5h://user:secret@127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=proxied)
    assert done.returncode == code, done.stderr
    assert "secret" not in done.stderr
    expected = "foedus: expected an HTTP proxy in the environment, got a SOCKS proxy: pip install "
    assert done.stderr.startswith(expected) == bool(code)
    assert ("socksio==1.0.0" in done.stderr, "PySocks==1.7.1" in done.stderr) == (
        "socksio" in lacking,
        "socks" in lacking.split(),
    )


def test_streams_that_are_closed_are_empty() -> None:
    """As some services and cron jobs start a command."""
    script = (
        "import sys; import console.cli as cli, console.entry as entry\n"
        "def run():\n"
        "    print(sys.stdin.read()); sys.stderr.write('told')\n"
        "    return 0\n"
        "cli.run_command = run; entry.main()"
    )
    closed = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, script]
    assert subprocess.run(closed, check=False).returncode == 0


def test_a_line_that_is_no_utf_8_is_read() -> None:
    script = (
        "import sys; import console.cli as cli, console.entry as entry\n"
        "cli.run_command = lambda: print(ascii(input()))\n"
        "entry.main()"
    )
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, input=b"caf\xe9\n", capture_output=True, check=False, env=strict)
    assert done.stdout.decode().strip() == r"'caf\udce9'"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_an_exception_does(number: signal.Signals) -> None:
    """A second one, which service managers and terminals send, does not end the ending."""
    script = (
        "import time; from console.entry import leave_on_signals; leave_on_signals()\n"
        "try: print('ready', flush=True); time.sleep(60)\n"
        "finally: print('ending', flush=True); time.sleep(0.5); print('ended', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        for expected in ("ready", "ending"):
            assert process.stdout.readline().strip() == expected
            process.send_signal(number)
        assert process.stdout.read().strip() == "ended"
        assert process.stderr.read() == f"foedus: ended by {number.name}\n"
        assert process.wait() == 128 + number


@pytest.mark.parametrize("number", ["SIGHUP", "SIGINT"])
def test_what_nohup_or_a_script_s_shell_ignores_stays_ignored(number: str) -> None:
    """A script starts what it has in the background without SIGINT: its own Ctrl-C is not for that, SIGTERM is."""
    script = (
        f"import signal; signal.signal(signal.{number}, signal.SIG_IGN)\n"
        f"from console.entry import leave_on_signals; leave_on_signals(); signal.raise_signal(signal.{number})"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_letters_that_a_terminal_lacks_are_no_error(encoding: str) -> None:
    script = (
        "import sys; import console.cli\n"
        "console.cli.run_command = lambda: print('caf\\u00e9 \\u2192 \\u732b') or 0\n"
        "from console.entry import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).startswith("caf")


def test_a_signal_ends_a_command_whose_terminal_has_gone() -> None:
    script = (
        "import time; from console.entry import leave_on_signals; leave_on_signals()\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        assert process.wait() == 128 + signal.SIGHUP
