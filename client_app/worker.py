"""The resident worker of a node: it answers a SuperNode's messages with the installed ClientApp.

    python -m client_app.worker DIR HOST:PORT

One process a node, one message after another. It stays between messages, so that libraries and base model are loaded
once; the base's memory is given back when nobody asks for a while. It binds without those libraries, and imports them
behind its first answer. It never installs or imports the code that comes
with a run (client_app/own_app.py), and what a message makes go wrong is an error reply. `foedus node` starts it again
when it dies.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from logging import INFO
from pathlib import Path

from flwr.app import Context, Message
from flwr.common.logger import log

from client_app.activity import Activity, note_failure, noted
from client_app.app import app
from client_app.own_app import app_digest, check_app, installed_hashes
from client_app.runtime import Runtime
from core.deployment import NodeSettings
from core.errors import IntegrityError

_POLL_SECONDS = 0.2


def work(settings: NodeSettings, address: str) -> None:
    """Answer messages until the process that started this one is gone."""
    runtime = Runtime(address, settings.worker_secret.read_bytes())
    own = dict(settings.node_config())

    def check(fab: bytes) -> None:
        try:
            check_app(fab)
        except IntegrityError as error:
            note_failure(settings.activity, "another version of the app")
            # The only words that leave this machine: they say whose node it is.
            raise IntegrityError(f"{settings.organisation}: {error}") from error

    def answer(message: Message, context: Context) -> Message:
        context.node_config = own  # from this machine's settings, and from nobody else
        return noted(settings.activity, lambda: app(message, context))

    # Of a worker that died over a message nobody works on it now.
    replace(Activity.read(settings.activity), since=None).write(settings.activity)
    parent, idle, bound = os.getppid(), Idle(settings.idle), False
    log(INFO, "%s: worker ready with app %s", settings.organisation, app_digest(installed_hashes()))
    while os.getppid() == parent:
        if runtime.handle_next(check, answer):
            idle.end()
            bound = True
        else:
            idle.go_on()
            if bound:  # and will be asked to train
                import_module("client_app.learning")
            time.sleep(_POLL_SECONDS)


def give_back_base() -> None:
    """Give back the memory of the base, if one was loaded."""
    if model := sys.modules.get("llm.model"):
        model.unload()


class Idle:
    """Time without a message: after so many seconds the memory of the base is given back, once."""

    def __init__(
        self,
        seconds: float,
        give_back: Callable[[], object] = give_back_base,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._give_back, self._now = seconds, give_back, now
        self.end()

    def end(self) -> None:
        """A message was answered: the time begins anew."""
        self._ends_at = self._now() + self._seconds

    def go_on(self) -> None:
        """There was no message."""
        if self._now() >= self._ends_at:
            self._give_back()
            self._ends_at = math.inf


if __name__ == "__main__":
    work(NodeSettings.read(Path(sys.argv[1])), sys.argv[2])
