"""A worker's tasks, through Flower's real runtime API."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import httpx
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import pull_task_input

from client_app.own_app import check_app
from console.backends.app_folder import stage
from tests.client_app.supernode import SuperNode, over, supernode
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def fab(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_fab_from_disk(stage(tmp_path_factory.mktemp("app")))


@pytest.fixture
def node(fab: bytes) -> Iterator[SuperNode]:
    with supernode(fab) as found:
        yield found


def echo(message: Message, context: Context) -> Message:
    answer = {"run": context.run_id, "asked": int(str(message.content.config_records["n"]["n"]))}
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)


def test_without_a_task_there_is_nothing_to_do(node: SuperNode) -> None:
    assert not node.runtime.handle_next(check_app, echo)


def test_messages_are_answered_one_after_another_by_one_process(node: SuperNode) -> None:
    for number in (1, 2):
        sent = node.send()
        assert node.runtime.handle_next(check_app, echo)
        reply = node.reply()
        assert reply.metadata.reply_to_message_id == sent.metadata.message_id
        assert not reply.has_error()
        node.state.delete_messages(message_ids=[reply.metadata.message_id])
        assert not node.runtime.handle_next(check_app, echo), number


def test_a_node_refuses_an_app_that_is_not_its_own_and_runs_nothing(node: SuperNode, tmp_path: Path) -> None:
    app = stage(tmp_path / "app")
    (app / "client_app" / "app.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    node.fab = build_fab_from_disk(app)
    node.send()
    assert node.runtime.handle_next(check_app, echo)
    error = node.reply().error
    assert error.code == ErrorCode.INVALID_FAB
    assert "app: expected that of this node" in str(error.reason)
    assert "'client_app/app.py'" in str(error.reason)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("failure", [ValueError("no such file: /home/own/key"), SystemExit(3), RecursionError()])
def test_what_a_message_breaks_is_an_error_reply_that_tells_no_path_and_not_the_workers_end(
    node: SuperNode, failure: BaseException
) -> None:
    def fail(message: Message, context: Context) -> Message:
        raise failure

    node.send()
    assert node.runtime.handle_next(check_app, fail)
    error = node.reply().error
    assert error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert error.reason == f"{type(failure).__name__}: the node's log says why"


def test_a_task_whose_run_has_ended_meanwhile_does_not_end_the_worker(node: SuperNode) -> None:
    def end(message: Message, context: Context) -> Message:
        # As the SuperNode does when the SuperLink gives it no more of a run that is over.
        assert node.state.finish_task(TaskIdentity.task_id, SubStatus.FAILED, "the run is finished")
        return echo(message, context)

    node.send()
    assert node.runtime.handle_next(check_app, end)
    node.send()
    assert node.runtime.handle_next(check_app, echo)


@pytest.mark.parametrize("step", ["pull_object", "confirm_message_received"])
def test_a_message_whose_run_ends_while_it_is_received_holds_no_later_one(node: SuperNode, step: str) -> None:
    node.send(**{step: over})
    # Before a worker asks for it: for the contents of such a message it would wait for an hour.
    assert not node.state.get_messages_legacy(is_reply=False)
    assert not node.runtime.handle_next(check_app, echo)
    sent = node.send()
    assert node.runtime.handle_next(check_app, echo)
    assert node.reply().metadata.reply_to_message_id == sent.metadata.message_id


def test_a_worker_that_waits_for_the_contents_of_a_message_whose_run_ends_goes_on(
    node: SuperNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, answered = Event(), list[Future[bool]]()

    def waiting(client: RuntimeHttpClient) -> object:
        waits.set()
        return pull_task_input(client)

    monkeypatch.setattr("client_app.runtime.pull_task_input", waiting)
    with ThreadPoolExecutor(1) as workers:

        def over_behind_the_worker(*_: object) -> None:
            answered.append(workers.submit(node.runtime.handle_next, check_app, echo))
            assert waits.wait(PATIENCE_SECONDS)
            over()

        node.send(pull_object=over_behind_the_worker)
        assert answered[0].result(PATIENCE_SECONDS)
    node.send()
    assert node.runtime.handle_next(check_app, echo)


def test_tasks_are_given_to_nobody_without_the_secret(node: SuperNode) -> None:
    node.send()
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        replace(node.runtime, secret=b"another" * 5).handle_next(check_app, echo)
    assert node.runtime.handle_next(check_app, echo)
