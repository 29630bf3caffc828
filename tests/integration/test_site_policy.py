"""People of an organisation decide, on a real deployment: what leaves, and that they leave."""

from pathlib import Path

import pytest

from core.storage.events import EventLog
from core.storage.state_folder import State
from tests.commands import foedus
from tests.integration.deployed import PRIVILEGED, Deployment, until, users
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]


def set_policy(deployment: Deployment, name: str, text: str) -> None:
    """Node and signer have a copy each, and read it anew for every message."""
    for folder in (deployment.node(name), deployment.signer(name)):
        (folder / "policy.toml").write_text(text)


def events(deployment: Deployment, run: str, kind: str) -> list[dict[str, object]]:
    return [e for e in EventLog.read(State(deployment.world.state).events(run))[0] if e["event"] == kind]


def test_an_update_waits_for_a_person_and_an_organisation_leaves(deployment: Deployment) -> None:
    home = deployment.folder / "medical"
    set_policy(deployment, "medical", 'approve = "first"\nmost-rounds = 1\n')
    deployment.start(deployment.app, "held", quorum=3, rounds=1)
    until(lambda: bool(events(deployment, "held", "held")), deployment.folder / "coordinator.log", 2)
    (entry,) = foedus("approve", home, "--json").json["held"]
    assert (entry["run"], entry["round"], entry["problem"]) == ("held", 1, None)
    sent = foedus("approve", home, "--log", "--json").json["sent"]
    assert "train" not in {answer["what"] for answer in sent if answer["run"] == "held"}
    assert foedus("approve", home, "--yes", entry["digest"], "--json").json["decided"] == "released"
    assert deployment.end("held")["event"] == "finished", deployment.log("coordinator")[-3000:]
    (record,) = (signed.value for signed in deployment.run("held").records())
    assert entry["digest"] in {admitted.signed.value.update for admitted in record.admitted}
    sent = foedus("approve", home, "--log", "--json").json["sent"]
    assert entry["digest"] in {answer["digest"] for answer in sent}

    # A second run asks for more rounds than the site allows: it is founded without this organisation.
    # It waits for a third in the place of the one that does not agree, as long as it waits for nodes.
    deployment.start(deployment.app, "longer", quorum=2, rounds=2, organisations=3, **{"bind-timeout": 60.0})
    assert deployment.end("longer")["event"] == "finished", deployment.log("coordinator")[-3000:]
    assert "medical" not in deployment.run("longer").genesis.names.values()
    assert "most-rounds: expected at most 1, as this site's policy allows, got 2" in deployment.log("node-medical")
    set_policy(deployment, "medical", "")

    signing = deployment.signer("medical")
    out, given = signing / "state" / "leave.json", deployment.folder / "leave.json"
    command = [str(deployment.python), str(deployment.python.parent / "foedus"), "members", "sign-leave", str(signing)]
    command += ["--run", "held", "--out", str(out)]
    owners = users()
    if PRIVILEGED:  # else node and signer are one user
        assert deployment.as_user(owners["node-medical"], ["env", f"HOME={signing}", *command]).returncode
    done = deployment.as_user(owners["signer-medical"], ["env", f"HOME={signing}", *command])
    assert done.returncode == 0, done.stderr
    given.write_bytes(Path(out).read_bytes())
    deployment.start(deployment.app, "held", quorum=3, rounds=1, mode="leave", request=str(given))
    assert deployment.end("held", 2)["event"] == "failed", "three make a quorum"
    assert "expected 3 members to stay, got 2" in str(events(deployment, "held", "failed")[-1]["error"])
