"""A dry run from the coordinator's side: real ClientApps in this process, as deployed nodes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from client_app.app import app as client
from core import keys
from core.canonical import Address
from core.errors import ConfigError
from server_app.dry_run import checked
from server_app.founders import Founders
from tests.server_app.worlds import World

App = Callable[[Message, Context], Message]


@pytest.fixture
def deployed(world: World, tmp_path: Path) -> tuple[dict[str, Any], App]:
    """The settings of a deployment's coordinator, and nodes of coding and medical, each with a key of its own."""
    names = ("coordinator", "coding", "medical")
    owned = {name: keys.create(tmp_path / f"{name}.key") for name in names}
    settings = {
        "mode": "check", "coordinator-key": str(tmp_path / "coordinator.key"), "organisations": 2, "timeout": 5.0,
        "members": f"{owned['coding'].address}, {owned['medical'].address}",
    }  # fmt: skip

    def answer(message: Message, context: Context) -> Message:
        name = names[context.node_id]
        context.node_config = {
            "organisation": name, "data": str(world.settings["data"]), "base": str(world.settings["base"]),
            "key-file": str(tmp_path / f"{name}.key"), "state": str(tmp_path / name),
            "pin-coordinator": owned["coordinator"].address,
        }  # fmt: skip
        return client(message, context)

    return settings, answer


def test_every_node_answers_and_nothing_is_founded(world: World, deployed: tuple[dict[str, Any], App]) -> None:
    settings, through = deployed
    world.run("check", through, **settings)
    answers = world.events("check", "checked")
    assert [(a["name"], a["problems"]) for a in answers] == [("coding", []), ("medical", [])]
    assert all(a["seconds"] > 0 and a["memory"] > 0 for a in answers)
    assert world.events("check", "finished")
    assert world.state.runs() == []
    assert not world.state.run("check").folder.exists()
    assert vars(world.ledger) == vars(type(world.ledger)()), "the ledger is as it was"


def test_who_could_not_found_is_told_by_the_rule_of_a_founding(
    world: World, deployed: tuple[dict[str, Any], App]
) -> None:
    settings, through = deployed
    listed = settings["members"].split(", ")[1]
    world.run("check", through, **settings | {"members": listed, "organisations": 1})
    problems = {a["name"]: a["problems"] for a in world.events("check", "checked")}
    assert problems["medical"] == []
    (problem,) = problems["coding"]
    assert problem.endswith("is not among the members of the settings")


def test_a_node_that_fails_or_keeps_silent_does_not_end_the_dry_run(
    world: World, deployed: tuple[dict[str, Any], App]
) -> None:
    settings, through = deployed

    def answer(message: Message, context: Context) -> Message:
        if context.node_id == 1:
            raise RuntimeError("out of order")
        return through(message, context)

    world.run("check", answer, **settings)
    assert [(a["name"], a["problems"]) for a in world.events("check", "checked")] == [
        (None, ["RuntimeError: out of order"]),
        ("medical", []),
    ]
    silent = checked(None, Founders(), [], "expected an answer within 5 s, got none")
    assert silent.problems == ("expected an answer within 5 s, got none",)


def test_the_ledger_of_a_dry_run_can_only_be_read(
    world: World, deployed: tuple[dict[str, Any], App], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []

    def open_ledger(_chain: str, _state: Path, key: object) -> object:
        opened.append(key)
        return world.ledger

    monkeypatch.setattr("server_app.chains.open_ledger", open_ledger)
    settings, through = deployed
    world.run("check", through, **settings)
    assert opened == [None], "without a key nothing is deployed, appointed or sent"


def test_a_simulation_has_no_nodes_to_try(world: World) -> None:
    with pytest.raises(ConfigError, match="mode check: expected coordinator-key"):
        world.run("check", mode="check")


def test_two_nodes_of_one_name_are_not_both_right(world: World, deployed: tuple[dict[str, Any], App]) -> None:
    settings, through = deployed

    def twice(message: Message, context: Context) -> Message:
        context.node_id = 1
        return through(message, context)

    world.run("check", twice, **settings)
    first, second = world.events("check", "checked")
    assert (first["problems"], second["problems"]) == ([], ["the name coding is taken"])
    assert Address(first["organisation"]) == Address(second["organisation"])
