"""A SuperNode's runtime API: where a worker takes its tasks from, and all that a worker calls of Flower's internals.

With `flower-supernode --isolation process` Flower starts no process for an app. A worker asks for a task, pulls its
message, pushes the reply and says that the task is over: what Flower's own `flwr-clientapp` does once, and a process
that stays does again and again. These parts of Flower have no promise to stay: its version is pinned, and
tests/integration/test_nodes.py runs them against real SuperNodes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from logging import ERROR, WARNING

import httpx
from flwr.app import Context, Message
from flwr.app.error import Error
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.logger import log
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client_app.heartbeat import Heartbeat

_COMPONENT = "foedus-node"
_RETRY_SECONDS = 30.0
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})

Check = Callable[[bytes], None]
"""Raises IntegrityError for a FAB with which a run's messages are not answered."""
App = Callable[[Message, Context], Message]


@dataclass(frozen=True)
class Runtime:
    """The runtime API of the SuperNode at `address` (HOST:PORT), which gives its tasks to whoever has the `secret`."""

    address: str
    secret: bytes
    _heartbeat: Heartbeat = field(default_factory=Heartbeat, repr=False, compare=False)

    def handle_next(self, check: Check, app: App) -> bool:
        """Take a task and answer it; returns whether there was one. What goes wrong is an error reply.

        Raises httpx.HTTPError when the SuperNode does not take the secret.
        """
        if not (token := self._acquire()):
            return False
        beat = SendTaskHeartbeatRequest()
        with (
            self._client(RuntimeTokenHttpInterceptor(token)) as client,
            self._heartbeat.of(lambda: client.SendTaskHeartbeat(beat)),
        ):
            context, failure = None, "the task could not be pulled"
            try:
                message, context, _, fab = pull_task_input(client)
                reply, failure = _answered(check, app, fab.content, message, context)
                push_message(client, reply, context)
            # Whatever a task does, it is this task's end and not the worker's.
            except Exception as error:  # noqa: BLE001
                failure = failure or f"the reply could not be pushed: {error}"
                log(ERROR, "%s: %s", failure, error)
            try:
                push_task_output(client, context, SubStatus.FAILED if failure else SubStatus.COMPLETED, failure)
            # The coordinator's run has ended, and with it the task and its token: others are still to come.
            except httpx.HTTPStatusError as error:
                log(WARNING, "the task was over before its answer: %s", error)
        return True

    def _acquire(self) -> str:
        """The token of the next task, "" without one, or while the SuperNode does not answer."""
        signed = SuperExecAuthHttpInterceptor(master_secret=self.secret, protected_methods=_ACQUIRE)
        # Without retries, which would go on for ever: the worker asks again.
        with self._client(signed, retry=False) as client, suppress(httpx.TransportError):
            acquired = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
            return acquired.token if acquired.HasField("task") else ""
        return ""

    @contextmanager
    def _client(self, interceptor: ProtobufClientInterceptor, *, retry: bool = True) -> Iterator[RuntimeHttpClient]:
        client = RuntimeHttpClient.from_server_address(
            server_address=self.address,
            insecure=True,  # on the loopback
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name=_COMPONENT), interceptor],
            # Flower's own interrupts the process when a token holds no more, as it does once its run has ended: a
            # worker that dies with every run that is lost takes a minute to come back.
            retry_invoker=RetryInvoker(exponential, httpx.TransportError, None, _RETRY_SECONDS) if retry else None,
        )
        try:
            yield client
        finally:
            client.close()


def _answered(check: Check, app: App, fab: bytes, message: Message, context: Context) -> tuple[Message, str]:
    """The reply to a message, and the reason if it is an error."""
    code = ErrorCode.INVALID_FAB
    try:
        check(fab)
        code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        return app(message, context), ""
    # SystemExit too: a message must not end the worker.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        log(ERROR, "run %d, message %r: %s", context.run_id, message.metadata.message_type, error, exc_info=error)
        # The text of an error may hold this machine's paths: of those of the app, only the kind leaves it.
        reason = str(error) if code == ErrorCode.INVALID_FAB else f"{type(error).__name__}: the node's log says why"
    return Message(Error(code=code, reason=reason), reply_to=message), reason
