"""Logs of the commands that stay: text, or one JSON object a line, on stderr or in a file that is rotated.

Whatever this process and its children write to stderr goes through a pipe of this process's own, line by line: so
what Flower, nginx or a library says is an object, too. Each has `time` (UTC), `level` and `message`; `event`, `run`,
`round` and `organisation` stand where they are known.
"""

import atexit
import json
import logging
import os
import re
import secrets
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from core.canonical import parse_json
from core.errors import UsageError
from core.escape import visible

MOST_BYTES = 10 * 2**20
MOST_FILES = 5
"""Older log files that are kept beside the one that is written."""
_STDERR = 2
_PATIENCE_SECONDS = 5.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Lines of Flower (`INFO :      text`), Python's logging (`ERROR:root:text`), uvicorn with its time, and nginx.
_LEVELLED = re.compile(r"(?:\d{4}-\S+Z )?(DEBUG|INFO|WARNING|ERROR|CRITICAL)(?:\s*:\s*|\s+(?=\[))(.*)")
_NGINX = re.compile(r"\d{4}/\d\d/\d\d [\d:]{8} \[(\w+)\] (.*)")
_NGINX_LEVELS = {"warn": "warning", "emerg": "critical", "alert": "critical", "crit": "critical", "notice": "info"}
_EXCEPTION = re.compile(r"[\w.]+(Error|Exception|Exit)\b")
"""The last line of a traceback, which is not indented."""
_structured: "list[Structured]" = []
"""The JSON log of this process, where it has one."""


class LogFormat(StrEnum):
    """How a log's lines look."""

    text = "text"
    json = "json"


def start_log(kind: LogFormat, file: Path | None = None, **known: str) -> None:
    """Send stderr, this process's and its children's, through a log until this process ends.

    `known` are fields of every object. Text without a file stays as it is. Raises UsageError when the file cannot be
    written.
    """
    if kind is LogFormat.text and file is None:
        return
    original = os.fdopen(os.dup(_STDERR), "w", encoding="utf-8", errors="replace", buffering=1)
    write = file_writer(file) if file else original.write
    reading, writing = os.pipe()
    os.dup2(writing, _STDERR)
    os.close(writing)
    shown: Callable[[str], str] = str
    if kind is LogFormat.json:
        _structured.append(shown := Structured(known))
    thread = threading.Thread(target=_pass_on, args=(reading, shown, write), name="log", daemon=True)
    thread.start()

    def end() -> None:
        sys.stderr.flush()
        os.dup2(original.fileno(), _STDERR)
        # A process that was left behind may hold the pipe open.
        thread.join(_PATIENCE_SECONDS)

    atexit.register(end)


def know(**known: str) -> None:
    """Add fields to every further object of the JSON log."""
    for log in _structured:
        log.known.update(known)


def tell(event: str, message: str, level: str = "info", **fields: Any) -> bool:
    """Write an event to the JSON log; False, and nothing is written, where there is none."""
    for log in _structured:
        plain = {"level": level, "event": event, **fields, "message": message}
        sys.stderr.write(f"{log.mark}{json.dumps(plain)}\n")
        sys.stderr.flush()
    return bool(_structured)


class Structured:
    """Lines as JSON objects: what `tell` has written with its fields, everything else by its level and words."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known, self._level = known, "info"
        # Foreign text may come on a line of its own, and must not pass for an event.
        self.mark = secrets.token_hex(16)

    def __call__(self, line: str) -> str:
        """The object of a line, which may have any words."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        own = line.startswith(self.mark)
        fields = parse_json(line.removeprefix(self.mark).encode()) if own else self._read(_COLOUR.sub("", line))
        return json.dumps({"time": now, **self.known, **fields})

    def _read(self, line: str) -> dict[str, str]:
        """The level that a program has written before its words; the lines of a traceback have that of an error."""
        text = line
        if match := _LEVELLED.match(line):
            self._level, text = match[1].lower(), match[2]
        elif match := _NGINX.match(line):
            self._level, text = _NGINX_LEVELS.get(match[1], match[1]), match[2]
        elif line.startswith(("Traceback ", "foedus: ")):
            self._level = "error"
        elif not line.startswith(" ") and not _EXCEPTION.match(line):
            self._level = "info"
        return {"level": self._level, "message": visible(text.strip())}


class _PrivateFile(RotatingFileHandler):
    """A rotated file that its user alone can read: organisations, addresses and paths stand in it."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.fdopen(os.open(self.baseFilename, flags, 0o600), "a", encoding="utf-8", errors="replace")


def file_writer(path: Path) -> Callable[[str], object]:
    """Appends lines to a file that is rotated; raises UsageError when it cannot be written."""
    try:
        path.expanduser().parent.mkdir(parents=True, exist_ok=True)
        handler = _PrivateFile(path.expanduser(), maxBytes=MOST_BYTES, backupCount=MOST_FILES)
    except OSError as error:
        raise UsageError(f"--log-file {path}: expected a file to write, got {error.strerror}") from error
    return lambda line: handler.emit(logging.makeLogRecord({"msg": line.rstrip("\n")}))


def _pass_on(reading: int, shown: Callable[[str], str], write: Callable[[str], object]) -> None:
    with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if text := line.rstrip():
                with suppress(OSError):  # a full disk must not stop those who write
                    write(shown(text) + "\n")
