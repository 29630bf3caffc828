"""`foedus doctor` says what is wrong by its status, its table and its JSON, and imports no model."""

import subprocess
import sys
from pathlib import Path

from tests.commands import foedus
from tests.console.deployments.founded import founded


def test_the_machine_is_looked_at_without_a_folder(tmp_path: Path) -> None:
    done = foedus("doctor", "--state", tmp_path / "state", "--json")
    assert done.code == (0 if done.json["ok"] else 1)
    assert len(done.json["checks"]) >= 8
    assert all(set(one) == {"name", "ok", "got", "expected", "advice"} for one in done.json["checks"])


def test_a_fault_is_the_exit_status_and_says_what_to_do(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    (tmp_path / "state" / "coordinator").mkdir()
    found = founded(tmp_path)
    done = foedus("doctor", found.folder)
    assert done.code == 1
    assert "Something is wrong" in done.out
    assert "foedus deploy admit" in done.out
    assert "expected a folder with coordinator.toml" in foedus("doctor", tmp_path / "nowhere").error


def test_no_model_is_imported(tmp_path: Path) -> None:
    found = founded(tmp_path)
    models = {"torch", "transformers", "peft", "bitsandbytes", "web3", "ray", "datasets"}
    for folder, light in ((str(found.folder), models), ("", models | {"flwr"})):
        arguments = ["doctor", *filter(None, [folder]), "--json"]
        code = f"import sys; from console.cli import run_command; run_command({arguments}); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not light & set(done.stdout.splitlines()[-1].split())
