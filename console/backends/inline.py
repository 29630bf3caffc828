"""The inline backend: a Grid that runs ClientApps in this process, without Ray, SuperLink and their start-up.

For tests and `foedus run --backend inline`. A message is answered while it is pushed; an exception in a ClientApp
becomes an error reply, as Flower's runtime makes it one.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from core.config import RunConfig

_ERROR_IN_CLIENT_APP = 2


def run_simulation(config: RunConfig, nodes: int, watch: Callable[[], object]) -> None:
    """Run a federation to its end; `watch` is called before every message, and at the end. Raises the app's error."""
    # Here and not above: other apps run on the Grid without their libraries.
    from client_app.app import app as client_app  # noqa: PLC0415
    from server_app.app import app as server_app  # noqa: PLC0415

    run_inline(server_app, client_app, nodes, config.to_flat(), watch)


def run_inline(
    server: ServerApp, client: ClientApp, nodes: int, run_config: UserConfig, watch: Callable[[], object] = bool
) -> None:
    """Run any two apps in this process; raises the ServerApp's error."""
    grid = InlineGrid(client, nodes, run_config, watch)
    with without_news():
        server(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=run_config))
    watch()


@contextmanager
def without_news() -> Iterator[None]:
    """Flower's log from warnings on: its news belong into a log of its own, and this process has the terminal."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


class InlineGrid(Grid):
    """`nodes` nodes that answer at once, each with its own context of the same run-config."""

    def __init__(
        self, client: ClientApp, nodes: int, run_config: UserConfig, watch: Callable[[], object] = bool
    ) -> None:
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
        self.client, self.watch = client, watch
        self.contexts: dict[int, Context] = {}
        for node in range(1, nodes + 1):
            partition: UserConfig = {"partition-id": node - 1, "num-partitions": nodes}
            self.contexts[node] = Context(1, node, partition, RecordDict(), run_config)
        self.replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """There is only one."""

    @property
    def run(self) -> Run:
        """Not known here: nothing in Foedus asks for it."""
        raise AttributeError("run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `Grid.create_message`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """All nodes, always."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Answer every message and keep the reply until it is pulled."""
        names = []
        for message in messages:
            self.watch()
            # Flower's runtime names a message when it is pushed; the setter is its own.
            name = message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
            try:
                reply = self.client(message, self.contexts[message.metadata.dst_node_id])
            except Exception as error:  # noqa: BLE001 - Flower's runtime turns any exception of a client into a reply
                reply = Message(Error(_ERROR_IN_CLIENT_APP, f"{type(error).__name__}: {error}"), reply_to=message)
            self.replies[name] = reply
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to these messages, once."""
        return [self.replies.pop(name) for name in message_ids if name in self.replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:  # noqa: ARG002
        """Push and pull at once."""
        return self.pull_messages(self.push_messages(messages))
