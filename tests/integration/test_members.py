"""Members of a real deployment: one joins behind a round, and keys are replaced, on nodes with signers of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core import keys
from core.canonical import Address
from core.keys import Key
from core.rounds import RoundRecord
from tests.commands import foedus
from tests.integration.deployed import Deployment, until, users
from tests.integration.faults import Live
from tests.integration.test_site_policy import set_policy
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]


def address(deployment: Deployment, name: str) -> Address:
    """Who an organisation is, by its key file."""
    return keys.read(deployment.signer(name) / "key").address


def release(deployment: Deployment, name: str, number: int) -> None:
    """Let an organisation's held update of a round go."""
    home = deployment.folder / name

    def held() -> list[str]:
        found = foedus("approve", home, "--json").json["held"]
        return [entry["digest"] for entry in found if entry["round"] == number]

    until(lambda: bool(held()), deployment.folder / "coordinator.log", 2)
    (digest,) = held()
    assert foedus("approve", home, "--yes", digest, "--json").json["decided"] == "released"


def stopped_behind_one(deployment: Deployment, name: str, members: tuple[str, ...], **settings: object) -> Live:
    """A run of three rounds that stops behind its first: a person lets one update of coding go, and not the next."""
    set_policy(deployment, "coding", 'approve = "each"\n')
    founding = ",".join(address(deployment, member) for member in members)
    count = {"organisations": len(members), "quorum": len(members), "members": founding}
    run = Live(deployment, name, rounds=3, retries=0, timeout=100.0, grace=0.0, **count, **settings)
    release(deployment, "coding", 1)
    assert run.end()["event"] == "failed"
    set_policy(deployment, "coding", "")
    assert [record.round for record in records(run) if record.admitted] == [1]
    return run


def records(run: Live) -> list[RoundRecord]:
    return [signed.value for signed in run.state.existing(run.name).records()]


def test_an_organisation_joins_a_run_behind_its_newest_round(deployment: Deployment) -> None:
    run = stopped_behind_one(deployment, "joined", ("coding", "financial"))
    run.start(mode="join", organisation="medical", **{"bind-timeout": 60.0})
    assert run.end()["event"] == "failed", "its site's policy names no run to join"
    assert "joins: expected" in deployment.log("node-medical") + deployment.log("signer-medical")
    set_policy(deployment, "medical", 'joins = ["joined"]\n')
    run.start(mode="join", organisation="medical")
    assert run.end()["event"] == "finished", deployment.log("coordinator")[-3000:]
    run.start(resume=True, quorum=2, timeout=240.0, organisations=3)
    done = [record for record in run.finish() if record.admitted]
    assert [(record.round, record.generation) for record in done] == [(1, 0), (2, 1), (3, 1)]
    assert [run.names(record) for record in done] == [{"coding", "financial"}] + [
        {"coding", "financial", "medical"}
    ] * 2
    set_policy(deployment, "medical", "")


def signed_at_home(deployment: Deployment, name: str, run: str, new: Key) -> Path:
    """An organisation signs, as the user of its signer, that a new key replaces its own."""
    home, user = deployment.signer(name), users()[f"signer-{name}"]
    out, key = home / "state" / "rotation.json", home / "state" / "new.key"
    script = str(deployment.python.parent / "foedus")
    made = deployment.as_user(
        user, ["env", f"HOME={home}", str(deployment.python), "-c", WRITE, str(key), new.secret.hex()]
    )
    assert made.returncode == 0, made.stderr
    command = [str(deployment.python), script, "members", "sign-rotation", str(home), "--new-key", str(key)]
    done = deployment.as_user(user, ["env", f"HOME={home}", *command, "--run", run, "--out", str(out)])
    assert done.returncode == 0, done.stderr
    given = deployment.folder / f"{run}-rotation.json"
    given.write_bytes(out.read_bytes())
    moved = deployment.as_user(user, ["mv", str(key), str(home / "key")])
    assert moved.returncode == 0, moved.stderr
    return given


WRITE = """
import os, sys
with os.fdopen(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
    file.write(sys.argv[2] + "\\n")
"""


@pytest.fixture
def medical_keeps_its_key(deployment: Deployment) -> Iterator[None]:
    """Whatever a test has replaced it by: another run asks for the one that is registered with the contract."""
    key = deployment.signer("medical") / "key"
    before = key.read_text()
    yield
    key.write_text(before)
    deployment.restart("medical")


@pytest.mark.usefixtures("medical_keeps_its_key")
def test_keys_of_an_organisation_and_of_the_coordinator_are_replaced(deployment: Deployment) -> None:
    run = stopped_behind_one(deployment, "rotated", ("coding", "financial", "medical"))
    old, new = address(deployment, "medical"), keys.derive(1, "medical, again")
    request = signed_at_home(deployment, "medical", "rotated", new)
    run.start(mode="rotate", request=str(request))
    assert run.end()["event"] == "finished", deployment.log("coordinator")[-3000:]
    deployment.restart("medical")

    own = deployment.folder / "key" / "own.key"
    former, after = own.with_name("former.key"), own.with_name("next.key")
    former.write_bytes(own.read_bytes())
    former.chmod(0o600)
    coordinator = keys.create(after)
    deployment.anvil.ask("anvil_setBalance", coordinator.address, hex(10**21))
    run.start(mode="rotate", **{"coordinator-key": str(after), "former-key": str(former)})
    assert run.end()["event"] == "finished", deployment.log("coordinator")[-3000:]
    run.start(resume=True, timeout=240.0, **{"coordinator-key": str(after), "bind-timeout": 240.0})
    done = [record for record in run.finish() if record.admitted]
    assert [(record.round, record.generation) for record in done] == [(1, 0), (2, 2), (3, 2)]
    assert all(len(run.names(record)) == 3 for record in done)
    genesis = run.state.existing("rotated").genesis
    assert genesis.signing(old) == new.address
    assert genesis.signing(genesis.coordinator) == coordinator.address
