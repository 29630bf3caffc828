import json
import stat
from pathlib import Path

import pytest

from console.cli import app
from core.storage.state_folder import State
from tests.commands import ORGANISATIONS, World, foedus

COMMANDS = (
    "run", "status", "credits", "verify", "proof", "evaluate", "export", "attribute", "chat", "evidence", "forget",
    "check", "chain start", "chain status", "chain stop", "chain deploy", "keys new", "keys show",
    "members request", "members approve", "members revoke", "members show",
)  # fmt: skip


@pytest.mark.parametrize("command", [*COMMANDS, "chain", "keys", "members", ""])
def test_help_shows_an_example(command: str) -> None:
    done = foedus(*command.split(), "--help")
    assert done.code == 0
    assert f"Example: foedus {command}".rstrip() in " ".join(done.out.split())


def test_nothing_else_is_registered() -> None:
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    names = {str(command.callback and command.callback.__name__) for command in app.registered_commands}
    for group, instance in groups.items():
        assert instance is not None
        names |= {f"{group} {c.callback.__name__}" for c in instance.registered_commands if c.callback}
    assert names == set(COMMANDS)


@pytest.mark.chain
def test_a_run_reports_every_field_that_scripts_rely_on(finished: World) -> None:
    result = finished.command("status").json
    assert result["status"] == "completed"
    assert set(result["organisations"]) == set(ORGANISATIONS)
    assert set(result["base_loss"]) == set(result["final_loss"]) == set(ORGANISATIONS)
    assert [entry["round"] for entry in result["rounds"]] == [1, 2]
    for entry in result["rounds"]:
        assert {"round", "admitted", "rejected", "aggregate", "transaction", "loss"} <= set(entry)
        assert sorted(entry["admitted"]) == list(ORGANISATIONS)
        assert entry["transaction"].startswith("0x")


@pytest.mark.chain
def test_a_finished_run_holds(finished: World) -> None:
    done = finished.command("verify")
    assert done.code == 0
    assert done.json["ok"]
    assert done.json["recomputed"] == 2
    assert done.json["failures"] == []


@pytest.mark.chain
def test_a_flipped_byte_is_named(world: World) -> None:
    aggregate = world.inline().json["rounds"][0]["aggregate"]
    run = State(world.state).existing()
    path = run.folder / "artifacts" / f"{run.artifacts.place(aggregate)}.sealed"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = world.command("verify")
    assert done.code == 1
    assert path.name in done.json["failures"][0]["where"]
    text = foedus("verify", "--state", world.state)
    assert text.code == 1
    assert path.name in text.out.splitlines()[0]


@pytest.mark.chain
def test_evaluate_compares_base_and_adapter_on_every_data_set(finished: World) -> None:
    result = finished.command("evaluate", "--limit", 2).json
    domains = {f"validation/{name}" for name in ORGANISATIONS}
    assert set(result["data_sets"]) == set(ORGANISATIONS) | domains
    for figures in result["data_sets"].values():
        assert figures["global"]["loss"] < figures["base"]["loss"]
        assert figures["base"].keys() == figures["global"].keys() == {"loss", "perplexity", "exact_match"}


@pytest.mark.chain
def test_evaluate_reads_other_data(finished: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    lines = [json.dumps({"text": f"line {i}"}) for i in range(4)]
    (tmp_path / "other" / "legal.jsonl").write_text("\n".join(lines), encoding="utf-8")
    result = finished.command("evaluate", "--data", tmp_path / "other", "--limit", 1).json
    assert "legal" in result["data_sets"]


@pytest.mark.chain
def test_an_export_carries_its_lineage(finished: World, tmp_path: Path) -> None:
    result = finished.command("export", "--out", tmp_path / "adapter").json
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    aggregate = finished.command("status").json["rounds"][-1]["aggregate"]
    assert result["path"] == str(tmp_path / "adapter")
    for wanted in (*ORGANISATIONS, aggregate, "## Licence", "library_name: peft"):
        assert wanted in card


def test_a_key_is_made_once_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "hospital"
    made = foedus("keys", "new", file, "--json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (
        foedus("keys", "show", file, "--json").json
        == made.json
        == {"address": made.json["address"], "public_key": made.json["public_key"], "file": str(file)}
    )
    assert file.read_text(encoding="ascii").strip() not in made.out + made.err
    assert foedus("keys", "new", file).code == 2


@pytest.mark.chain
def test_a_chain_is_started_filled_and_stopped(world: World) -> None:
    assert not world.command("chain status").json["running"]
    deployed = world.command("chain deploy").json["addresses"]
    assert set(deployed) == {"PublicLedger", "PrivateLedger"}
    found = world.command("chain status").json
    assert found["running"]
    assert found["url"] == found["urls"]["public"]
    assert found["addresses"] == deployed
    assert world.command("chain stop").json["stopped"]
    assert not world.command("chain status").json["running"]
