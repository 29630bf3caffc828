"""`foedus proof`: a proof of participation is made, and checked by anybody against the chain."""

import json
from pathlib import Path

import pytest

from tests.commands import foedus
from tests.console.audited import Audited

pytestmark = pytest.mark.chain


@pytest.fixture
def proof(audited: Audited, tmp_path: Path) -> Path:
    path = tmp_path / "proof.json"
    done = audited.world.command("proof", "--organisation", "medical", "--round", 2, "--out", path)
    assert done.json["path"] == str(path)
    return path


def test_a_proof_is_checked_alone_and_by_the_contract(audited: Audited, proof: Path, tmp_path: Path) -> None:
    check = ("proof", "--check", proof, "--chain", audited.url, "--state", tmp_path / "empty", "--json")
    genesis = audited.run.genesis
    medical = genesis.named("medical")
    for root in (("--genesis", genesis.digest), ("--address", genesis.chain.contract)):
        done = foedus(*check, *root)
        assert done.code == 0
        assert (done.json["ok"], done.json["organisation"], done.json["round"]) == (True, medical.address, 2)
    # Anybody can deploy the contract and prove something there: without a root it shows nothing.
    rootless = foedus(*check)
    assert (rootless.code, rootless.json["ok"], rootless.json["consistent"]) == (1, False, True)
    assert "nothing shows whose it is" in rootless.json["failures"][0]
    wrong = foedus(*check, "--genesis", "0x" + "12" * 32)
    assert (wrong.code, wrong.json["consistent"]) == (1, True)


def test_a_proof_holds_against_a_run_of_the_state_folder(audited: Audited, proof: Path) -> None:
    done = audited.world.command("proof", "--check", proof)
    assert (done.code, done.json["ok"]) == (0, True)


def test_a_proof_that_was_changed_does_not_hold(audited: Audited, proof: Path) -> None:
    changed = json.loads(proof.read_bytes())
    changed["salt"] = "00" * 32
    proof.write_text(json.dumps(changed, sort_keys=True, separators=(",", ":")))
    done = audited.world.command("proof", "--check", proof)
    assert done.code == 1
    assert "root 0x" in done.json["failures"][0]


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ((), ("--organisation NAME", "--round N", "--out FILE")),
        (("--organisation", "hospital", "--round", 1, "--out", "x"), ("'hospital'", "medical")),
        (("--organisation", "medical", "--round", 9, "--out", "x"), ("round 9", "medical")),
        (("--check", "/nowhere"), ("/nowhere", "`foedus proof`")),
    ],
)
def test_what_cannot_be_proven_is_refused_in_one_line(
    audited: Audited, options: tuple[object, ...], facts: tuple[str, ...]
) -> None:
    done = audited.world.command("proof", *options)
    assert done.code == 2
    assert all(fact in done.error for fact in facts), done.error
