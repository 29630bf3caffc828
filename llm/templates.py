"""Chat templates: a program that comes with a base and writes turns as the text that the base was trained on.

transformers runs it in a sandbox, which keeps it from files, and neither from the clock nor from looping. A template
that prints today's date would make of the same record another example every day: its date is fixed when the base is
loaded, in the text of the template itself. One that does not end is stopped, and so is one that fills the memory.
"""

import ctypes
import re
import resource
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from core.errors import DataError, ModelError
from llm.records import Message

LONGEST_SECONDS = 10.0
"""A template takes a millisecond; so much longer, it loops."""
MOST_BYTES = 2**30
"""A template takes some kilobytes; what takes so many more fills the memory."""
_CLOCK = "strftime_now"
"""The function by which a template asks transformers for the date."""
_ASKED = re.compile(rf"""{_CLOCK}\s*\(\s*(?:"([^"\\{{}}]*)"|'([^'\\{{}}]*)')\s*\)""")


_ONE_AT_A_TIME = threading.Lock()
"""The limit of memory is the process's: two templates at once would restore each other's."""


class _LoopError(BaseException):
    """Raised in the thread of a template that took too long; no `except Exception` of a library catches it."""


def chat(tokenizer: Any, messages: Iterable[Message], *, answered: bool) -> str:
    """The text of some turns, unless `answered` with the marker that an answer follows.

    Raises DataError when the template refuses the turns, fails on them, does not end, or fills the memory.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    roles = ", ".join(turn["role"] for turn in turns)
    try:
        with _ONE_AT_A_TIME, memory_limit_restored(), stopped_after(LONGEST_SECONDS):
            limit_memory(MOST_BYTES)
            return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=not answered))
    except _LoopError as error:
        raise DataError(
            f"the base model's chat template: expected text within {LONGEST_SECONDS:g} s of the turns {roles}, got none"
        ) from error
    except MemoryError as error:
        raise DataError(
            f"the base model's chat template: expected text of the turns {roles} in {MOST_BYTES >> 20} MiB, got more"
        ) from error
    except Exception as error:  # a program of others, which may fail in every way
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"the base model's chat template refuses the turns {roles}: {why}") from error


def prints_date(folder: Path) -> bool:
    """Whether the chat template among a base's files asks for the date."""
    files = [*folder.glob("chat_template*"), folder / "tokenizer_config.json"]
    return any(_CLOCK.encode() in path.read_bytes() for path in files if path.is_file())


def fix_date(tokenizer: Any, day: date) -> None:
    """Let the tokenizer's chat template print `day` for today.

    Raises ModelError where it asks for the date in a format that is no plain text.
    """

    def fixed(template: str) -> str:
        found = _ASKED.sub(lambda asked: repr(day.strftime(asked[1] or asked[2] or "")), template)
        # `strftime_now is defined` may stay: it asks for no date.
        if re.search(rf"{_CLOCK}(?!\s+is\b)", found):
            raise ModelError(f"chat template: expected the format of its date as text, got {_CLOCK} of something else")
        return found

    given = tokenizer.chat_template  # one, or several by name
    named = isinstance(given, dict)
    tokenizer.chat_template = {name: fixed(one) for name, one in given.items()} if named else fixed(str(given))


@contextmanager
def memory_limit_restored() -> Iterator[None]:
    """Have this process's limit of memory as it was, however what is inside ends."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def limit_memory(more: int) -> None:
    """Let this process take so many more bytes of memory, beyond which Python raises MemoryError; on Linux."""
    sizes = Path("/proc/self/statm")
    if not sizes.exists():
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(sizes.read_text(encoding="ascii").split()[0]) * resource.getpagesize() + more
    lowest = min(limit for limit in (most, before, hard) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (lowest, hard))


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Inside, this thread is stopped by a `_LoopError` once so many seconds have passed."""
    thread, lock, done = threading.get_ident(), threading.Lock(), False

    def stop() -> None:
        with lock:
            if not done:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_LoopError))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            done = True
        timer.cancel()
