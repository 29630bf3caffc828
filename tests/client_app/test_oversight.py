"""Where an organisation looks, and what it makes of what it sees."""

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from client_app import oversight
from client_app.oversight import Oversight, confirm, metrics
from client_app.witness import Standing
from core.composition import Composition
from core.config import RunConfig
from core.errors import ConfigError, IntegrityError
from core.ledger import LedgerView, MemoryLedger
from core.messages.training import Task
from core.round_key import RoundKey
from core.rounds import Salts
from core.storage.state_folder import State
from tests import federation as f

GENESIS = f.genesis()
RECORD = f.record(GENESIS, aggregate=f.update_of(GENESIS, "medical").digest)
EXAMPLES = {
    a.organisation: f.EXAMPLES[name]
    for name in f.EXAMPLES
    for a in RECORD.admitted
    if a.organisation == f.address(name)
}
OWN = f.address("financial")


class Empty(MemoryLedger):
    """The federation's ledger, on which no round stands."""

    domain = f.CHAIN

    def __init__(self) -> None:
        super().__init__()
        self.open_run(GENESIS.digest, [member.address for member in GENESIS.organisations])


@cache
def task(number: int) -> Task:
    """A task that shows round `number` - 1, admitted with the right weights."""
    total = sum(EXAMPLES.values())
    admitted = tuple(replace(a, weight=EXAMPLES[a.organisation] / total) for a in RECORD.admitted)
    record = replace(RECORD, round=number - 1, admitted=admitted)
    return Task(
        GENESIS, OWN, 0, 0, number, (), record.sign(f.COORDINATOR, GENESIS.chain), Salts.draw(record),
        Composition.of(f.update_of(GENESIS, "medical")),
    )  # fmt: skip


def looking(folder: Path, monkeypatch: pytest.MonkeyPatch, ledger: LedgerView, **changes: Any) -> Oversight:
    monkeypatch.setattr(oversight, "_ledger", lambda chain, state, contract: ledger)
    return replace(Oversight("embedded", State(folder), 1, "flag"), **changes)


def test_a_node_s_own_settings_overrule_the_run_s(tmp_path: Path) -> None:
    config = RunConfig(chain_lag=5)
    own: dict[str, Any] = {"chain-url": "http://own:8545", "state": str(tmp_path), "chain-lag-policy": "abstain"}
    assert Oversight.deployed(config, own) == Oversight("http://own:8545", State(tmp_path), 5, "abstain")
    assert Oversight.deployed(config, own | {"chain-lag": 2}).lag == 2
    assert Oversight.deployed(config, own | {"most-draws": 9}).most_draws == 9


def test_a_node_without_a_chain_looks_at_none_whatever_the_run_says() -> None:
    assert Oversight.deployed(RunConfig(chain="anvil"), {}).chain == ""


@pytest.mark.parametrize(
    "wrong", [{"chain-lag": -1}, {"chain-lag": "1"}, {"chain-lag-policy": "panic"}, {"most-draws": 0}]
)
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"node-config: expected (chain-lag|most-draws)"):
        Oversight.deployed(RunConfig(), wrong)


def test_whoever_has_no_chain_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = Oversight("", State(tmp_path), 1, "abstain")
    with caplog.at_level(logging.WARNING, logger="flwr"):
        logging.getLogger("flwr").propagate = True
        standing = confirm(own.check_records(task(2)), task(2))
    assert "it trusts the coordinator" in caplog.text
    assert metrics(standing) == {"trusting": 1}
    assert not own.abstains(standing)


def test_a_late_chain_is_flagged_or_a_reason_to_abstain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = looking(tmp_path, monkeypatch, Empty())
    own.check_records(task(2))
    later = replace(task(2), round=3)
    standing = confirm(own.check_records(later), later)
    assert standing == Standing(trusting=False, behind=(RoundKey(GENESIS.digest, 0, 0, 1),))
    assert metrics(standing) == {"behind": 1}
    assert not own.abstains(standing)
    assert replace(own, policy="abstain").abstains(standing)
    assert not replace(own, policy="abstain").abstains(Standing(trusting=False))


def test_a_larger_lag_waits_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = looking(tmp_path, monkeypatch, Empty(), lag=2)
    later = replace(task(2), round=3)
    assert confirm(own.check_records(later), later).behind == ()


def test_the_memory_outlives_the_process_and_is_one_organisation_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = task(2)
    looking(tmp_path, monkeypatch, Empty()).check_records(first)
    assert first.parent
    other = replace(first.parent.value, residual=0.5)
    two_faced = replace(first, parent=other.sign(f.COORDINATOR, GENESIS.chain))
    with pytest.raises(IntegrityError, match="has shown two records"):
        looking(tmp_path, monkeypatch, Empty()).check_records(two_faced)
    looking(tmp_path, monkeypatch, Empty()).check_records(replace(two_faced, organisation=f.address("mathematical")))
