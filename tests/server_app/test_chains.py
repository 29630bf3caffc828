"""The coordinator's chains: what is queued for them, and what happens when one does not answer."""

from pathlib import Path
from typing import Any

import pytest

import server_app.chains
from core.errors import LedgerUnreachableError
from core.ledger import RoundCommitment
from core.rounds import RoundRecord
from core.storage.run_folder import RunFolder
from server_app.chains import Chains
from tests.server_app.clients import Federation, Ledger

NAMES = ("medical", "coding")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A run of two rounds that no ledger knows."""
    federation = Federation.create(tmp_path, NAMES, rounds=2)
    federation.commit = lambda record: None  # type: ignore[method-assign] # its rounds go nowhere
    federation.start()
    return federation


def records(run: RunFolder) -> list[RoundRecord]:
    return [signed.value for signed in run.records()]


def test_earlier_rounds_are_committed_first(federation: Federation) -> None:
    ledger, run = federation.ledger, federation.run
    with Chains(ledger).committing(run):
        pass
    anchored = [ledger.read(record.key) for record in records(run)]
    assert [found and found[0] for found in anchored] == [run.commitment(record) for record in records(run)]
    numbers = [found[1].block for found in anchored if found]
    assert numbers == sorted(numbers)


def test_a_round_without_salts_is_left_where_it_is(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = records(federation.run)
    monkeypatch.setattr(RunFolder, "salts_destroyed", lambda run: frozenset({first.digest, second.digest}))
    with Chains(federation.ledger).committing(federation.run):
        pass
    assert federation.ledger.read(first.key) is None


class Down(Ledger):
    """A ledger that does not answer."""

    def commit(self, commitment: RoundCommitment) -> Any:
        raise LedgerUnreachableError("nothing answers")


def test_leaving_says_how_many_rounds_wait(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_app.chains, "_ANCHOR_SECONDS", -10.0)
    with (
        pytest.raises(LedgerUnreachableError, match=r"2 rounds of anchors\.jsonl wait for their chain: resume"),
        Chains(Down()).committing(federation.run),
    ):
        pass


def test_an_exception_leaves_at_once_and_is_not_hidden(federation: Federation) -> None:
    with pytest.raises(KeyError, match="mine"), Chains(Down()).committing(federation.run):
        raise KeyError("mine")


def test_without_a_private_chain_a_genesis_fixes_none() -> None:
    assert Chains(Ledger()).private_chain(1) is None
