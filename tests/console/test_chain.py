"""`foedus chain`: a development chain is started, filled and stopped."""

import socket

import pytest

from tests.commands import World, foedus

pytestmark = pytest.mark.chain


def test_a_chain_is_started_filled_and_stopped(world: World) -> None:
    assert not world.command("chain status").json["running"]
    told = world.command("chain deploy").json
    deployed = told["addresses"]
    assert set(deployed) == {"PublicLedger", "PrivateLedger"}
    found = world.command("chain status").json
    assert found["running"]
    assert found["url"] == found["urls"]["public"] == told["url"]
    assert found["addresses"] == deployed
    assert world.command("chain stop").json["stopped"]
    assert not world.command("chain status").json["running"]


def test_a_port_in_use(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = foedus("chain", "start", "--port", taken.getsockname()[1], "--state", world.state)
    assert done.code == 1
    assert "in use" in done.error
