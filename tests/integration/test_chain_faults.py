"""What happens to the public chain while a federation trains: rounds go on, and every one is anchored in the end."""

import pytest

from tests.commands import foedus
from tests.integration.deployed import Deployment
from tests.integration.faults import Live
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]


def test_a_chain_that_is_killed_for_three_rounds_delays_anchors_and_no_round(deployment: Deployment) -> None:
    run = Live(deployment, "chain", rounds=6)
    run.wait_for("round-closed", 1)
    deployment.anvil.kill()
    try:
        run.wait_for("round-closed", 4)
    finally:
        deployment.anvil.start()
    records = run.finish()
    assert [record.attempt for record in records] == [1] * 6
    assert all(len(record.admitted) == 3 for record in records)


def test_a_chain_that_is_down_at_the_end_is_waited_for_and_the_run_goes_on_from_there(deployment: Deployment) -> None:
    run = Live(deployment, "end", rounds=3)
    run.wait_for("round-closed", 1)
    deployment.anvil.kill()
    try:
        ended = run.end()
    finally:
        deployment.anvil.start()
    assert ended["event"] == "failed"
    assert "chain" in ended["error"]
    before = {path: path.read_bytes() for path in (run.state.run("end").folder / "records").iterdir()}
    assert len(before) == 3
    run.start(resume=True)
    run.finish()
    assert {path: path.read_bytes() for path in before} == before


def test_rounds_that_a_reorganisation_of_three_blocks_takes_are_anchored_again(deployment: Deployment) -> None:
    run = Live(deployment, "reorganised", rounds=5)
    run.wait_for("round-closed", 3)
    deployment.anvil.reorganise(3)
    assert len(run.finish()) == 5


def test_an_organisation_that_is_revoked_counts_no_more(deployment: Deployment) -> None:
    run = Live(deployment, "revoked", rounds=6)
    run.wait_for("round-closed", 1)
    before = deployment.anvil.ask("evm_snapshot")
    medical = deployment.run("revoked").genesis.named("medical").address
    key = deployment.folder / "key" / "own.key"
    places = ("--chain", deployment.chain, "--address", deployment.contract, "--state", deployment.world.state)
    done = foedus("members", "revoke", medical, *places, "--key", key)
    try:
        assert done.code == 0, done.err
        records = run.finish()
    finally:
        deployment.anvil.ask("evm_revert", before)
    assert run.names(records[0]) == {"coding", "financial", "medical"}
    assert run.names(records[-1]) == {"coding", "financial"}
    assert run.rejected("medical") <= {
        "revoked: its registration has ended", "revoked: its registration ended during the round"
    }  # fmt: skip
