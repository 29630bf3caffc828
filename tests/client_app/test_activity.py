"""What a worker notes of its answers, for whoever watches the node."""

import time
from pathlib import Path

import pytest
from flwr.app import Error, Message, RecordDict

from client_app.activity import Activity, note_failure, noted
from core.messages.refusal import Cause, Refusal, Refused


def reply(content: RecordDict | None = None) -> Message:
    return Message(content or RecordDict(), 1, "train")


def test_an_answer_is_counted_with_its_time_once_it_is_there(tmp_path: Path) -> None:
    path, before = tmp_path / "activity.json", time.time()

    def answer() -> Message:
        since = Activity.read(path).since
        assert since is not None
        assert since >= before
        return reply()

    noted(path, answer)
    found = Activity.read(path)
    assert (found.answered, found.failed, found.error, found.since) == (1, 0, "", None)
    assert found.at is not None
    assert found.seconds is not None
    assert before <= found.at <= time.time()
    assert 0 <= found.seconds < 5


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal(Refused.FAILED, Cause.MEMORY), "client-error: memory"),
        (Refusal(Refused.OBJECTED, Cause.MESSAGE), "objected: message"),
        (Refusal(Refused.ABSTAINED, Cause.AGENT), ""),
    ],
)
def test_a_refusal_is_an_error_unless_the_organisation_abstains(tmp_path: Path, refusal: Refusal, error: str) -> None:
    path = tmp_path / "activity.json"
    noted(path, lambda: reply(refusal.to_content()))
    found = Activity.read(path)
    assert (found.error, found.failed, found.answered) == (error, bool(error), not error)


def test_the_next_answer_ends_an_error_and_counts_stay(tmp_path: Path) -> None:
    path = tmp_path / "activity.json"
    note_failure(path, "another version of the app")
    noted(path, lambda: Message(Error(code=1, reason="no"), reply_to=reply()))
    assert Activity.read(path).error == "error 1"
    with pytest.raises(KeyError):
        noted(path, lambda: {}["none"])
    assert Activity.read(path).error == "KeyError"
    noted(path, reply)
    found = Activity.read(path)
    assert (found.answered, found.failed, found.error) == (1, 3, "")


def test_a_damaged_file_and_a_full_disk_stop_no_worker(tmp_path: Path) -> None:
    path = tmp_path / "activity.json"
    for damaged in (b"", b"{", b"[]", b'{"other": 1}'):
        path.write_bytes(damaged)
        assert Activity.read(path) == Activity()
    assert noted(tmp_path / "none" / "activity.json", reply).has_content()
