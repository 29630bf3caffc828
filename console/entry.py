"""The console script: a requirement that is missing becomes one line and an exit code, a signal an orderly end."""

import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from urllib.request import getproxies

_FOR_SOCKS = {"socksio==1.0.0": "socksio", "PySocks==1.7.1": "socks"}
"""What httpx, by which Flower and the Hub's client connect, and requests, by which web3 does, need for SOCKS."""
_STREAMS = (
    ("stdin", "r", "surrogateescape"),  # what is no UTF-8 is refused where text is read, in words
    ("stdout", "w", "replace"),  # letters that the terminal's encoding lacks become question marks, not an error
    ("stderr", "w", "replace"),
)
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run the command line and exit with its code."""
    leave_on_signals()
    open_streams()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes train at once; more threads slow all of them
    # What listens on this machine's loopback is never behind a proxy, whatever the network's settings leave out.
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, (direct, "127.0.0.1", "localhost")))
    if lacking := lacking_for_socks():
        remedy = f"pip install {' '.join(lacking)}, or unset it"
        sys.stderr.write(f"foedus: expected an HTTP proxy in the environment, got a SOCKS proxy: {remedy}\n")
        sys.exit(2)
    try:
        from console.cli import run_command  # noqa: PLC0415 - what it imports may not be installed

        code = run_command()
    except ModuleNotFoundError as error:
        remedy = "run `make setup`, or pip install -r requirements.txt"
        sys.stderr.write(f"foedus: expected the module {error.name!r}, got no such module: {remedy}\n")
        code = 2
    sys.exit(code)


def open_streams() -> None:
    """Have the standard streams open, and take any text: one that was closed is empty, and takes everything."""
    for name, mode, errors in _STREAMS:
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to the process's end
        if isinstance(stream := getattr(sys, name), TextIOWrapper):
            stream.reconfigure(errors=errors)


def lacking_for_socks() -> list[str]:
    """The packages without which a SOCKS proxy of the environment stops every connection, those on loopback too."""
    proxies = getproxies()
    if not any(proxies.get(kind, "").lower().startswith("socks") for kind in ("all", "http", "https")):
        return []
    return [package for package, module in _FOR_SOCKS.items() if find_spec(module) is None]


def leave_on_signals() -> None:
    """Have SIGTERM and SIGHUP end this process as an exception does: what it started is ended on the way out."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
            signal.signal(number, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    for other in _SIGNALS:  # service managers and terminals send several: a second one must not end the ending
        signal.signal(other, signal.SIG_IGN)
    with suppress(OSError):  # with SIGHUP the terminal may have gone
        os.write(2, f"foedus: ended by {signal.Signals(number).name}\n".encode())  # a print may be under way
    sys.exit(128 + number)
