"""The steps of an erasure by themselves."""

from pathlib import Path

import pytest

from core.errors import DestroyedError, IntegrityError, LedgerUnreachableError
from server_app.erasure import steps
from tests import federation as f
from tests.erasures import attestation
from tests.server_app.clients import Federation, Ledger

NAMES = ("medical", "coding")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    federation = Federation.create(tmp_path, NAMES, rounds=2)
    federation.start()
    return federation


def test_rounds_on_the_ledger_are_not_waited_for(federation: Federation) -> None:
    steps.wait_for_anchors(federation.run, federation.ledger, 0)


def test_rounds_that_do_not_arrive_end_the_wait(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_ANCHOR_SECONDS", 0.0)
    with pytest.raises(LedgerUnreachableError, match="round 1 is not on the chain yet"):
        steps.wait_for_anchors(federation.run, Ledger(), 0)


def test_states_and_salts_on_the_list_are_destroyed_and_no_others(federation: Federation) -> None:
    run = federation.run
    first, second = (signed.value for signed in run.records())
    update = first.admitted[0].signed.value.update
    gone = f.delta({"model.a.lora_B": (5, 2)}, "gone")
    run.artifacts.put(gone, run.members(0))
    listed = attestation(
        run.genesis, destroyed=(gone.digest, update, second.aggregate), salts_destroyed=(first.digest,)
    )
    for _ in range(2):  # once more changes nothing
        steps.destroy(run, listed)
    with pytest.raises(DestroyedError):
        run.artifacts.open(gone.digest)
    assert run.artifacts.open(update).digest == update  # what is served is made of it
    assert run.artifacts.open(second.aggregate).digest == second.aggregate
    with pytest.raises(IntegrityError):
        run.salts(first)
    assert run.salts(second)


def test_only_rounds_between_the_parent_and_the_last_are_reaggregated(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, asked = federation.rounds(), list[int]()
    monkeypatch.setattr(rounds, "reaggregate", lambda lane, records, erased: asked.extend(r.round for r in records))
    for parent, last in ((0, 0), (0, 2), (1, 2), (1, 1)):
        asked.append(-1)
        steps.reaggregate(rounds, attestation(rounds.genesis, parent_round=parent, reaggregated=last))
    assert asked == [-1, -1, 1, 2, -1, 2, -1]
