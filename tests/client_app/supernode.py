"""Flower's real runtime API of a SuperNode, without a SuperLink behind it: messages are put in, replies taken out."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import uvicorn
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from client_app.heartbeat import Heartbeat
from client_app.runtime import Runtime
from client_app.supernode import receive_next
from console.backends.children import free_port

SECRET = b"s" * 32


@cache
def heartbeat() -> Heartbeat:
    """One for all tests: its thread goes on behind them, in a process that it must not end as it would a worker."""
    return Heartbeat(end=lambda _status: None)


@dataclass
class SuperNode:
    """A runtime API that listens, and the state behind it."""

    runtime: Runtime
    state: Any
    objects: Any
    fab: bytes
    sent: int = 0

    def send(self, content: RecordDict | None = None, **steps: Callable[..., Any]) -> Message:
        """A message of run 1 arrives from the coordinator, with other steps than those that go well."""
        self.sent += 1
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # a message needs a sender
        message = Message(content or RecordDict({"n": ConfigRecord({"n": self.sent})}), 5, "query.bind", group_id="1")
        message.metadata.__dict__.update(_run_id=1, _message_id=message.object_id)
        contents = {name: item.deflate() for name, item in get_all_nested_objects(message).items()}
        run = Run.create_empty(1)
        run.fab_id, run.fab_version, run.fab_hash = "foedus/foedus", "0", hashlib.sha256(self.fab).hexdigest()
        good = {"pull_object": lambda _, name: contents[name], "confirm_message_received": lambda *_: None}
        receive_next(
            state=self.state, object_store=self.objects, node_config={"organisation": "foreign"},
            receive=lambda: (message, get_object_tree(message)), get_run=lambda _: run,
            get_fab=lambda *_: Fab(run.fab_hash, self.fab, {}), trusted_entities=None,
            **good | steps,
        )  # fmt: skip
        return message

    def reply(self) -> Message:
        """The only reply that waits for the coordinator; it may have an error."""
        (reply,) = self.state.get_messages_legacy(is_reply=True)
        return reply  # type: ignore[no-any-return] # Flower's state is untyped here

    def pushed(self) -> bytes:
        """Everything that waits for the coordinator, as it would travel."""
        return b"".join(entry.content for entry in self.objects.store.values())


def over(*_: object) -> NoReturn:
    """A step at which Flower learns that the run has ended."""
    raise RunNotRunningException


@contextmanager
def supernode(fab: bytes) -> Iterator[SuperNode]:
    """Listen on a free port of the loopback."""
    objects = ObjectStoreFactory()
    states = NodeStateFactory(objectstore_factory=objects)
    state = states.state()
    state.set_node_id(5)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(create_app(states, SECRET), host="127.0.0.1", port=port, ws="none", log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield SuperNode(Runtime(f"127.0.0.1:{port}", SECRET, heartbeat()), state, objects.store(), fab)
    finally:
        server.should_exit = True
        thread.join()
