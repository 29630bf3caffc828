"""Work in a child of this process, which may become another user there and still has all that was imported."""

import os
import traceback
from collections.abc import Callable


def in_child(work: Callable[[], str]) -> Callable[[], str]:
    """Begin some work in a child; what is returned waits for what came of it, and fails where the work did.

    Call it before threads are started: the child has none of them, and what they have locked stays locked.
    """
    reading, writing = os.pipe()
    if not (child := os.fork()):
        status = 1
        try:
            os.write(writing, work().encode())
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it is: beyond this line it would be a second pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)

    def result() -> str:
        with os.fdopen(reading, "rb") as told:
            text = told.read().decode()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "see the child's own traceback"
        return text

    return result
