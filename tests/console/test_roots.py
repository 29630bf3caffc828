"""Roots of trust: what is known from elsewhere decides whether something consistent holds."""

from pathlib import Path

import pytest

from console.roots import ROOTLESS, Roots
from core.errors import UsageError
from core.storage.state_folder import State
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import build


def test_a_genesis_a_contract_or_an_own_run_is_a_root(tmp_path: Path) -> None:
    federation = build(tmp_path / "runs" / "run", rounds=1)
    header, empty = federation.genesis.header, State(tmp_path / "empty")
    for roots in (
        Roots(header.digest, "", empty),
        Roots("", header.chain.contract, empty),
        Roots(header.digest, header.chain.contract, empty),
        Roots("", "", State(tmp_path)),
    ):
        assert roots.failures(header) == []
    assert Roots("", "", empty).failures(header) == [ROOTLESS]


def test_every_root_that_is_given_must_be_met(tmp_path: Path) -> None:
    header, state = build(tmp_path / "runs" / "run", rounds=1).genesis.header, State(tmp_path)
    other = "0x" + "12" * 20
    assert Roots(header.digest, other, state).failures(header) == [
        f"expected contract {other}, got {header.chain.contract}"
    ]
    assert "expected genesis" in Roots(some_digest(), "", state).failures(header)[0]
    for wrong in (("0x12", ""), ("", "0x12")):
        with pytest.raises(UsageError):
            Roots(*wrong, state)
