"""The base model that an organisation learns with is its own, and is imported by nobody who only binds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from client_app import learning
from client_app.agreement import Agreement
from core import keys
from core.config import RunConfig
from core.errors import DataError, ModelError, UsageError
from core.genesis import Base, Genesis
from core.messages.queries import OFFER, OfferQuery
from tests import federation as f
from tests.client_app.test_app import context
from tests.commands import make_data
from tests.llm.conftest import byte_tokenizer

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "ray", "pandas", "scipy")
"""Seconds of imports, for what takes a signature."""


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    """The settings of a deployed node."""
    keys.create(tmp_path / "own.key")
    data = make_data(tmp_path / "data")
    key, state = tmp_path / "own.key", tmp_path / "state"
    return {"organisation": "medical", "data": str(data), "key-file": str(key), "state": str(state)}


def test_a_worker_binds_and_asks_its_chain_without_the_libraries_of_a_model(own: dict[str, Any]) -> None:
    own |= {"chain-url": "http://127.0.0.1:9"}
    code = f"""
import sys
import client_app.worker
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from core.canonical import Address, Digest
from core.config import RunConfig
from core.keys import Domain
from core.messages.queries import BIND, Bind, Bound
from core.update import Asked
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
query = Bind({f.asked(f.other("challenge"))!r}, {f.CHAIN!r})
context = Context(1, 1, {own!r}, RecordDict(), RunConfig().to_flat())
reply = client_app.worker.app(Message(query.to_content(), 1, BIND, group_id="bind"), context)
(signed,) = Bound.from_content(reply.content).registrations
print(signed.value.organisation.name, "web3" in sys.modules, sorted({set(HEAVY)!r} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "medical True []"


def test_a_deployed_node_loads_only_the_base_of_its_own_settings(
    own: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(_: Genesis, name: str) -> None:
        loaded.append(name)
        raise ModelError("it is not needed here")

    monkeypatch.setattr(learning, "base_of_genesis", load)
    monkeypatch.setattr(Agreement, "check", lambda *_: None)
    foreign = f.genesis(base=Base("/somebody/elses", f.genesis().base.digest, "none"))
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    address = keys.read(Path(own["key-file"])).address
    query = OfferQuery(foreign, address, 0, 0, 1, 1.0, {}).to_content()
    for chosen in ({}, {"base": "/srv/own"}):
        with pytest.raises(ModelError):
            learning.offer(
                Message(query, 1, OFFER, group_id="1"), context({"base": "/somebody/elses"}, **own, **chosen)
            )
    assert loaded == [RunConfig().base, "/srv/own"]


def test_turns_that_the_own_base_refuses_are_named_by_file_and_line(own: dict[str, Any], tmp_path: Path) -> None:
    strict = "{% if messages | length > 2 %}{{ raise_exception('roles must alternate') }}{% endif %}"
    byte_tokenizer(strict).save_pretrained(tmp_path / "strict")
    learning.check_data(own | {"base": str(tmp_path / "strict")})
    turns = [{"role": role, "content": "x"} for role in ("user", "user", "assistant")]
    with (file := Path(own["data"]) / "medical.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"messages": turns}) + "\n")
    with pytest.raises(DataError, match=f"^{file}:13: .*refuses the turns user, user.*: roles must alternate"):
        learning.check_data(own | {"base": str(tmp_path / "strict")})
    with pytest.raises(UsageError, match="no data of organisation 'sentiment'"):
        learning.check_data(own | {"organisation": "sentiment"})
