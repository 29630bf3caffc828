"""A node's dry run: what it finds, and that nothing comes of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client_app import dry_run
from client_app.app import app
from client_app.dry_run import one_step
from client_app.hosting import Node
from client_app.remote_key import RemoteKey
from core import keys
from core.canonical import Digest, digest
from core.config import RunConfig
from core.errors import DataError
from core.messages.queries import CHECK, DryRunAnswer, DryRunQuery
from core.update import Asked
from llm import bases
from llm.model import ModelSpec, load
from llm.records import Record
from llm.train import TrainResult
from tests import federation as f
from tests.commands import make_base, make_data

CHALLENGE = digest("challenge", b"1")
SETTINGS: dict[str, Any] = {"quantisation": "none", "rank": 2, "alpha": 4.0, "max-length": 48}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def place(base: Path, tmp_path: Path) -> dict[str, Any]:
    """A deployed node's settings."""
    keys.create(tmp_path / "own.key")
    own = {"organisation": "medical", "key-file": str(tmp_path / "own.key"), "state": str(tmp_path / "state")}
    return own | {
        "data": str(make_data(tmp_path / "data")),
        "base": str(base),
        "pin-coordinator": f.COORDINATOR.address,
    }


def tried(place: dict[str, Any], own: Digest, **settings: Any) -> DryRunAnswer:
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # a message needs a sender
    query = DryRunQuery(Asked(f.COORDINATOR.address, "check", CHALLENGE), f.CHAIN, own)
    flat = RunConfig().to_flat() | SETTINGS | settings
    context = Context(1, 1, dict(place), RecordDict(), flat)
    return DryRunAnswer.from_content(app(Message(query.to_content(), 1, CHECK), context).content)


def test_a_node_that_could_take_part_names_its_step_and_its_registration(place: dict[str, Any], base: Path) -> None:
    answer = tried(place, bases.digest_of(base), **{"base": "/the/coordinator's"})
    assert answer.problems == ()
    assert answer.seconds > 0
    assert answer.memory > 2**20
    assert answer.registration
    own = keys.read(Path(place["key-file"])).address
    assert (answer.registration.organisation.address, answer.registration.organisation.name) == (own, "medical")


def test_a_dry_run_signs_shows_and_writes_nothing(
    place: dict[str, Any], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing is agreed to in a dry run")

    monkeypatch.setattr(Node, "agreement", never)
    monkeypatch.setattr(keys.Key, "sign", never)
    assert tried(place, bases.digest_of(base)).problems == ()
    assert not Path(place["state"]).exists()


def test_a_dry_run_s_step_sees_none_of_the_organisation_s_records(
    place: dict[str, Any], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Record] = []

    def training(_: object, records: Sequence[Record], *__: object, **___: object) -> TrainResult:
        seen.extend(records)
        raise DataError("enough")

    monkeypatch.setattr(dry_run, "train", training)
    assert tried(place, bases.digest_of(base)).problems == ("base and step: data: the node's log says why",)
    assert seen
    assert not any("medical" in record.answer or record.prompt for record in seen)


@pytest.mark.parametrize("private", [{}, {"dp_epsilon": 3.0}])
def test_a_dry_run_s_step_fills_every_row(base: Path, private: dict[str, Any]) -> None:
    config = RunConfig(base=str(base), quantisation="none", rank=2, max_length=48, batch_size=3, accumulation=2)
    result = one_step(load(ModelSpec(str(base), "none", 2, config.alpha)), replace(config, **private))
    assert (result.tokens, result.examples) == (3 * 2 * 48, 3 * 2)


@pytest.mark.parametrize(
    ("own", "settings", "problem"),
    [
        ({"pin-coordinator": f.address("coding")}, {}, f"settings: coordinator: expected {f.address('coding')}"),
        ({"pin-contract": f.address("coding")}, {}, f"settings: contract: expected {f.address('coding')}"),
        ({"pin-members": f.address("coding")}, {}, "settings: members: expected"),
        ({"organisation": "absent"}, {}, "data and key: usage: the node's log says why"),
        ({"signer": "/run/none.sock"}, {}, "data and key: usage: the node's log says why"),
        ({"base": "/nowhere"}, {}, "base and step: model: the node's log says why"),
        ({}, {"max-length": 100_000}, "base and step: settings: the node's log says why"),
        ({"chain-url": "http://127.0.0.1:1"}, {}, "chain: ledger-unreachable: the node's log says why"),
    ],
)
def test_what_a_node_could_not_do_is_a_problem_and_its_words_stay_at_home(
    place: dict[str, Any], base: Path, own: dict[str, Any], settings: dict[str, Any], problem: str
) -> None:
    answer = tried(place | own, bases.digest_of(base), **settings)
    assert len(answer.problems) == 1, answer.problems
    assert answer.problems[0].startswith(problem)
    assert "/nowhere" not in answer.problems[0]


def test_a_base_that_is_not_the_coordinator_s_is_a_problem(place: dict[str, Any]) -> None:
    (problem,) = tried(place, digest("base", b"another")).problems
    assert problem.startswith(f"base and step: base: expected {digest('base', b'another')}, as the coordinator has it")


def test_a_signer_of_another_coordinator_is_a_problem(
    place: dict[str, Any], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"address": f.address("medical"), "coordinator": f.address("coding"), "chain": f.CHAIN.to_dict()}
    monkeypatch.setattr(RemoteKey, "_answer", lambda self, request: about)
    answer = tried(place | {"signer": str(Path(place["data"]) / "sock")}, bases.digest_of(base))
    assert answer.problems == (answer.problems[0],)
    assert answer.problems[0].startswith("data and key: signer: expected settings for")
    assert answer.seconds > 0, "what does not depend on it is tried all the same"


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("most-norm = 1", "most-norm: expected at most 1, as this site's policy allows, got 100"),
        ("most-epsilon = 3", "most-epsilon: expected at most 3, as this site's policy allows, got inf"),
        ('bases = ["another"]', "base: expected another, as this site's policy allows, got "),
        ('data-sets = ["another"]', "data-sets: expected one of those in its list"),
    ],
)
def test_what_the_site_s_policy_would_refuse_is_a_problem(
    place: dict[str, Any], base: Path, tmp_path: Path, policy: str, problem: str
) -> None:
    (tmp_path / "policy.toml").write_text(policy)
    (told,) = tried(place | {"policy": str(tmp_path / "policy.toml")}, bases.digest_of(base)).problems
    assert told.startswith(f"site policy: {problem}")
