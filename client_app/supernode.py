"""A SuperNode that ends with its connection, and that no ended run holds up; `foedus node` starts it, and again.

    python -m client_app.supernode OPTIONS      the options are those of `flower-supernode`

In Flower 1.41 the process of a SuperNode whose connection failed for good (its SuperLink's certificate has expired, or
an answer was not one that it knows) stays: the thread of its runtime API keeps it, while nothing asks the SuperLink for
messages any more. Whoever watches the process takes it for one that serves.

Nor does it clean up behind a message whose run ends while it is received: the exception that says so is no `Exception`.
A worker that takes such a message waits for its contents for an hour, and answers nobody meanwhile.
"""

import os
import sys
from collections.abc import Callable
from logging import ERROR
from typing import Any, NoReturn, TypeVar

from flwr.common.logger import log
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode

from core.errors import RunError

T = TypeVar("T")

_receive_next = start_client_internal._pull_and_store_message


def receive_next(
    *, pull_object: Callable[..., bytes], confirm_message_received: Callable[..., None], **others: Any
) -> int | None:
    """Flower's receiving of a message: its run, None where there was none, or where its run has ended meanwhile."""
    return _receive_next(
        pull_object=_failing(pull_object), confirm_message_received=_failing(confirm_message_received), **others
    )


def _failing(step: Callable[..., T]) -> Callable[..., T]:
    """A step that fails as others do where the run has ended: then Flower drops the message and its task."""

    def taken(*arguments: object) -> T:
        try:
            return step(*arguments)
        except RunNotRunningException as error:
            raise RunError("its run has ended") from error

    return taken


def serve() -> NoReturn:
    """Serve until Flower's command returns or fails, then end the process with a status that says which."""
    start_client_internal._pull_and_store_message = receive_next  # type: ignore[assignment] # called by names
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
