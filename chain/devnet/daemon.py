"""The process that serves a state folder's embedded chains: `python -m chain.devnet.daemon STATE/chain/embedded`.

Its folder holds `public.sqlite`, `private.sqlite` and the files of a service (see chain.devnet.service). It ends by
itself when nobody has asked anything for IDLE_SECONDS or its folder is gone, and may be killed at any moment: a
block is on disk before its transaction is answered.
"""

import argparse
from pathlib import Path
from typing import Final

from chain.devnet.service import Address, become, last_address

IDLE_SECONDS: Final = 600.0


def main() -> None:
    """Become the folder's daemon, or leave when it has one."""
    parser = argparse.ArgumentParser(prog="python -m chain.devnet.daemon")
    parser.add_argument("folder", type=Path, help="where the chains lie")
    parser.add_argument("--port", type=int, default=0, help="0: the last one, or any that is free")
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, help="seconds without a request until it ends")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    port, token = last_address(folder)
    # Held until the process ends, and has written why: whoever waits for it reads that when the lock is free.
    lock = become(folder)
    # Imported late: whoever does not get the lock must be quick to leave.
    from chain.devnet.server import serve  # noqa: PLC0415

    serve(folder, lock, Address(arguments.port or port, token), arguments.idle, fixed_port=bool(arguments.port))


if __name__ == "__main__":
    main()
