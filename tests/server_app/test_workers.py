"""What the runtime's own failures mean: in a simulation the run's end, in a deployment one organisation's absence."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Error, Message

from core.errors import RunError
from core.messages.training import EVALUATE, TRAIN
from tests import federation as f
from tests.server_app.clients import Federation, TestGrid

DIED = Error(0, "<class 'ActorDiedError'>:<'The actor died\nunexpectedly'>")


class DyingGrid(TestGrid):
    """One message of a kind gets Flower's answer for a worker that has died."""

    dies: str = ""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        (message,) = messages
        (name,) = super().push_messages([message])
        if message.metadata.message_type == self.dies:
            self.dies = ""
            self.replies[name] = Message(DIED, reply_to=message)
        return [name]


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_a_worker_that_dies_ends_a_simulation_which_resumed_is_as_if_it_had_lived(tmp_path: Path, kind: str) -> None:
    federation, undisturbed = (Federation.create(tmp_path / name, rounds=2) for name in ("killed", "undisturbed"))
    grid = DyingGrid(federation.clients)
    grid.dies = kind
    with pytest.raises(RunError, match="a worker of the simulation died: resume the run"):
        federation.start(grid)
    assert federation.start().rounds.served == undisturbed.start().rounds.served
    assert federation.rejections() == []


def test_in_a_deployment_it_is_one_organisation_that_fails(tmp_path: Path) -> None:
    members = tuple(replace(member, derived=False) for member in f.members())
    federation = Federation.create(tmp_path, rounds=1, organisations=members)
    grid = DyingGrid(federation.clients)
    grid.dies = TRAIN
    federation.start(grid)
    ((_, _, _, reason),) = federation.rejections()
    assert reason == "client-error"
