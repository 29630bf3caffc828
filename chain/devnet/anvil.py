"""Foundry's anvil as a service of a state folder: `python -m chain.devnet.anvil FOLDER --chain-id N`.

The starter takes the folder's lock, detaches and becomes anvil itself (exec), which keeps the lock as long as it lives.
Its state is written to `state.json` every second and when it ends; kill -9 loses what came later. The binary is looked
for on PATH and in the contracts' node_modules.
"""

import argparse
import os
import shutil
import socket
from importlib.resources import files
from pathlib import Path

from chain.devnet.service import announce, become, last_address
from core.errors import UsageError


def binary() -> Path:
    """The anvil executable. Raises UsageError when there is none."""
    if found := shutil.which("anvil"):
        return Path(found)
    # By way of assets, which is always the checkout's or the installed one: this file may lie in an unpacked FAB.
    checkout = Path(str(files("assets"))).parent
    for candidate in sorted(checkout.glob("chain/contracts/node_modules/@foundry-rs/anvil-*/bin/anvil")):
        return candidate
    raise UsageError(
        "expected anvil on PATH or in chain/contracts/node_modules, got none: install Foundry, "
        "or run `npm ci --ignore-scripts` in chain/contracts, or use --chain embedded"
    )


def main() -> None:
    """Become the folder's anvil, or leave when it has one."""
    parser = argparse.ArgumentParser(prog="python -m chain.devnet.anvil")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chain-id", type=int, required=True)
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    program, port = binary(), _free_port(last_address(folder).port)
    lock = become(folder)
    os.set_inheritable(lock.fileno(), True)
    announce(folder, f"http://127.0.0.1:{port}")
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--chain-id": str(arguments.chain_id),
        "--accounts": "1",
        "--state": str(folder / "state.json"),
        "--state-interval": "1",
    }
    words = [word for pair in options.items() for word in pair]
    os.execv(program, [str(program), "--silent", *words])  # noqa: S606 - no shell is wanted


def _free_port(preferred: int) -> int:
    """The preferred port when it is free, else any free one of the loopback."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port of the loopback is free")


if __name__ == "__main__":
    main()
