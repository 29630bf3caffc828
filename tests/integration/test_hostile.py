from collections.abc import Callable
from pathlib import Path

import pytest

from console.backends.app_folder import stage
from tests.commands import World, foedus, make_data

HOSTILE = Path(__file__).with_name("hostile.py")
REASONS = {
    "forge": "forged-signature",
    "inflate": "inflated-examples",
    "poison": "not-finite",
    "replay": "replayed-nonce",
    "reshape": "wrong-shape",
}


def stage_hostile(folder: Path) -> Path:
    """The app as it is packed, with organisations that attack by their name."""
    apps = stage(folder) / "client_app"
    (apps / "signing.py").rename(apps / "honest_signing.py")
    (apps / "signing.py").write_text(HOSTILE.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.chain
def test_hostile_organisations_are_rejected_and_the_run_completes(
    new_world: Callable[[], World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_world()
    world = World(made.base, make_data(tmp_path / "hostile", ("honest", *REASONS)), made.state)
    monkeypatch.setattr("console.backends.ray.stage", stage_hostile)
    done = foedus(*world.run("--set", "wire=fp32", rounds=2))  # as the attackers write
    assert done.code == 0, done.err
    first, second = done.json["rounds"]
    assert {r["organisation"]: r["reason"] for r in second["rejected"]} == REASONS
    assert second["admitted"] == ["honest"]
    assert sorted(first["admitted"]) == ["honest", "replay"]
    assert done.json["final_loss"]["honest"] < done.json["base_loss"]["honest"]
    assert world.command("verify", "--strict").json["ok"]
