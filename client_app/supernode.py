"""A SuperNode whose process ends when it serves no more; `foedus node` starts it, and starts it again.

    python -m client_app.supernode OPTIONS      the options are those of `flower-supernode`

In Flower 1.41 the process of a SuperNode whose connection failed for good (its SuperLink's certificate has expired, or
an answer was not one that it knows) stays: the thread of its runtime API keeps it, while nothing asks the SuperLink for
messages any more. Whoever watches the process takes it for one that serves.
"""

import os
import sys
from logging import ERROR
from typing import NoReturn

from flwr.common.logger import log
from flwr.supernode.cli import flower_supernode


def serve() -> NoReturn:
    """Serve until Flower's command returns or fails, then end the process with a status that says which."""
    status = 1  # it has no end of its own: a return is a failure that it has logged
    try:
        flower_supernode()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else status
    except Exception:  # noqa: BLE001 - whatever it was, the process must not stay
        log(ERROR, "the SuperNode failed", exc_info=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)  # Python would wait for the threads that are left


if __name__ == "__main__":
    serve()
