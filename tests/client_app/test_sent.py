"""The log of what left a site: an entry for each answer, on disk before it leaves."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client_app.sent import Answers, digest_of
from core.messages import training
from core.messages.codec import json_record
from core.storage import jsonl
from core.storage.state_folder import State
from tests import federation as f

GENESIS = f.genesis()


@pytest.fixture
def message() -> Message:
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    return Message(RecordDict(), 1, "train")


def node(folder: Path, known: int = 0) -> Any:
    return SimpleNamespace(known=known, oversight=SimpleNamespace(state=State(folder)))


def test_an_update_is_logged_by_the_digest_that_its_organisation_signed(message: Message, tmp_path: Path) -> None:
    manifest, update = f.manifest(GENESIS), f.update_of(GENESIS, "medical")
    content = training.reply(manifest.sign(f.key("medical"), GENESIS.chain), update)
    assert Answers(node(tmp_path), GENESIS).answer(message, content, manifest).content == content
    (entry,) = jsonl.read(State(tmp_path).sent)
    assert entry.pop("at").endswith("+00:00")
    assert entry.pop("bytes") > len(update.to_bytes())
    assert entry == {
        "to": f.COORDINATOR.address, "run": f.RUN, "what": "train", "digest": manifest.update,
        "round": manifest.round, "lane": manifest.lane, "records": manifest.examples,
    }  # fmt: skip


def test_an_answer_that_cannot_be_logged_does_not_leave(message: Message, tmp_path: Path) -> None:
    (tmp_path / "sent.jsonl").mkdir()
    with pytest.raises(OSError, match=r"sent\.jsonl"):
        Answers(node(tmp_path), GENESIS).answer(message, training.losses({"base": 1.0, "global": 1.0}))


def test_a_simulation_logs_nothing(message: Message, tmp_path: Path) -> None:
    Answers(node(tmp_path, known=3), GENESIS).answer(message, training.losses({"base": 1.0, "global": 1.0}))
    assert not State(tmp_path).sent.exists()


def test_other_content_has_another_digest() -> None:
    contents = [RecordDict({name: json_record({"value": value})}) for name, value in (("a", 1), ("a", 2), ("b", 1))]
    assert len({digest_of(content) for content in contents}) == 3
    assert digest_of(contents[0]) == digest_of(RecordDict({"a": json_record({"value": 1})}))
