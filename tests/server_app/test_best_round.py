"""The best round is kept and served, and training ends early, by losses that the records hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import server_app.measuring
from chain.audit.run import verify
from console.views.report import report
from core.config import RunConfig
from core.errors import UsageError
from core.lanes import Lane
from core.rounds import RoundRecord
from core.storage.run_folder import RunFolder
from llm.evaluate import Adapters, RecordLoss
from llm.model import Model
from llm.records import Record
from llm.served import serving
from provenance.history import stored_rounds
from provenance.served import trace
from server_app.erasure.run import erase
from server_app.measuring import Measuring, measuring_again
from tests import federation as f
from tests.server_app.clients import Federation
from tests.server_app.erasure.test_run import Erasable, asked
from tests.server_app.worlds import World
from unlearning.check import check
from unlearning.plan import Lanes, plans

NAMES = ("medical", "coding", "financial")


def records(run: RunFolder) -> list[RoundRecord]:
    return [signed.value for signed in run.lineage(0)]


def trained(folder: Path, losses: list[float], **changes: Any) -> Federation:
    """A federation whose states have these losses, one round after the other."""
    federation = Federation.create(folder, NAMES, **changes)
    federation.measures.losses = list(losses)
    federation.start()
    return federation


def test_the_best_round_is_served_and_the_next_one_grows_from_the_last(tmp_path: Path) -> None:
    federation = trained(tmp_path, [3.0, 1.0, 2.0], rounds=3, serve="best")
    first, best, last = records(federation.run)
    assert [r.validation_loss for r in (first, best, last)] == [3.0, 1.0, 2.0]
    assert last.parent == best.digest
    assert [task.state.digest for task in federation.clients.trained[-3:]] == [best.aggregate] * 3
    served = [event["aggregate"] for event in federation.events_named("evaluated")]
    assert served == [first.aggregate, best.aggregate, best.aggregate]
    assert federation.clients.evaluated[-1].served.digest == best.aggregate
    initial = federation.rounds().rule.initial(f.fresh())
    restored = Lane.restore(federation.run, 0, federation.run.lineage(0), initial)
    assert (restored.state.digest, restored.served_state.digest) == (last.aggregate, best.aggregate)
    assert restored.served is not None
    assert restored.served.value == best


def test_a_loss_is_recorded_only_where_it_decides_over_something(tmp_path: Path) -> None:
    (first, last) = records(trained(tmp_path, [3.0, 1.0], rounds=2).run)
    assert (first.validation_loss, first.best, last.best) == (None, None, None)


def test_training_ends_after_rounds_without_a_better_one_and_is_resumed_no_further(tmp_path: Path) -> None:
    federation = trained(tmp_path, [3.0, 1.0, 2.0, 1.0], rounds=9, patience=2)
    assert [record.round for record in records(federation.run)] == [1, 2, 3, 4]
    assert [event["round"] for event in federation.events_named("evaluated")] == [1, 2, 3, 4]
    federation.start()
    assert [record.round for record in records(federation.run)] == [1, 2, 3, 4]
    assert [event["round"] for event in federation.events_named("evaluated")] == [1, 2, 3, 4, 4]


def test_each_lane_ends_by_itself(tmp_path: Path) -> None:
    lanes = tuple((member.address,) for member in f.members(NAMES))
    # Round by round, lane by lane: the second never gets better, the others always do.
    losses = [3.0, 3.0, 3.0, 2.0, 3.0, 2.0, 1.0, 1.0]
    federation = trained(tmp_path, losses, rounds=3, patience=1, lanes=lanes)
    assert [len(federation.run.lineage(lane)) for lane in range(3)] == [3, 2, 3]


def test_a_run_that_ended_early_is_audited_and_reported_as_complete(world: World) -> None:
    run = world.run("early", rounds=6, patience=1, serve="best", **{"learning-rate": 0.5})
    found = records(run)
    assert len(found) < 6
    best = found[-2]
    assert [record.best.aggregate for record in found[-2:] if record.best] == [best.aggregate] * 2
    measuring = measuring_again(run, RunConfig.from_flat(world.settings))
    audited = verify(run, world.ledger, measures=measuring)
    assert audited.failures == ()
    assert audited.checked["validation losses"] == len(found)
    told = report(world.state, run)
    assert told["status"] == "completed"
    assert told["served"] == [
        {"lane": 0, "round": best.round, "validation_loss": best.validation_loss, "ended_early": True}
    ]
    assert told["rounds"][-1]["aggregate"] == best.aggregate
    # What readers serve, and what they say of it, is the best round and the rounds before.
    assert serving(run, measuring.model).state.digest == best.aggregate
    assert trace(run, "What is said of medical?", "nothing at all").aggregate == best.aggregate
    parts = [u for done in stored_rounds(run, 0, 1.0, measuring.fresh) for u in done.updates]
    for name, array in run.artifacts.open(best.aggregate).arrays.items():
        total = sum(u.weight * u.state[name].astype(np.float64) for u in parts)
        np.testing.assert_allclose(array, total, rtol=2.0**-20, atol=2.0**-24)


def test_a_round_is_measured_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss in its record is the one that its evaluation tells."""
    measured, real = list[int](), server_app.measuring.record_losses

    def counting(model: Model, adapters: Adapters, found: Sequence[Record], length: int) -> tuple[RecordLoss, ...]:
        measured.append(len(found))
        return real(model, adapters, found, length)

    monkeypatch.setattr(server_app.measuring, "record_losses", counting)
    monkeypatch.setattr(Measuring, "effects", lambda *_arguments, **_deciding: {})  # of single updates
    run = world.run("once", rounds=2, patience=5)
    (event,) = [e for e in world.events("once", "evaluated") if e["round"] == 2]
    values = list(event["validation"].values())
    assert records(run)[1].validation_loss == pytest.approx(sum(values) / len(values))
    assert len(measured) == 2


def test_an_audit_measures_a_lying_loss_and_computes_a_lying_best_round(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Measuring.loss
    monkeypatch.setattr(Measuring, "loss", lambda self, state: loss(self, state) / 2)
    run = world.run("lying", rounds=2, serve="best")
    monkeypatch.undo()
    report_ = verify(run, world.ledger, measures=measuring_again(run, RunConfig.from_flat(world.settings)))
    assert {failure.what for failure in report_.failures} == {"validation loss"}
    without = verify(run, world.ledger)
    assert without.failures == ()
    assert without.checked["validation losses, not measured again"] == 2


# --- erasures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "label"), [("remove", "interim"), ("repair", "approximate"), ("replay", "exact")])
def test_an_erasure_compares_its_rounds_anew(tmp_path: Path, method: str, label: str) -> None:
    erasable = Erasable.of(tmp_path, serve="best")
    # Of the new rounds the second is the best: re-aggregated, trained again, or of a calibration the last one.
    losses = {"repair": [9.0, 8.0, 9.0, *[7.0] * 6]}.get(method, [9.0, 7.0, 8.0])
    erasable.federation.measures.losses = losses
    context = erasable.context()
    (signed,) = erase(context, asked(erasable, "coding", method))
    certificate, line = signed.verified(erasable.run.genesis), records(erasable.run)
    assert certificate.label == label
    served = line[1] if method != "repair" else line[3]
    assert certificate.heads == (served.digest,)
    assert certificate.aggregate == served.aggregate == context.rounds.served.digest
    assert check(signed, erasable.run, erasable.federation.ledger) == ()


def test_a_calibration_that_made_nothing_better_leaves_the_label_of_removal(tmp_path: Path) -> None:
    erasable = Erasable.of(tmp_path, serve="best")
    erasable.federation.measures.losses = [9.0, 7.0, 8.0, *[8.0] * 6]
    (signed,) = erase(erasable.context(), asked(erasable, "coding", "repair"))
    certificate = signed.verified(erasable.run.genesis)
    assert certificate.label == "interim"
    assert check(signed, erasable.run, erasable.federation.ledger) == ()


def test_a_run_that_ended_early_is_erased_from_but_not_repaired(tmp_path: Path) -> None:
    federation = trained(tmp_path, [3.0, 3.0], rounds=9, patience=1)
    history = Lanes.read(federation.run)
    (removal,) = plans(history, f.address("coding"), "remove")
    (replay,) = plans(history, f.address("coding"), "replay")
    assert (removal.rounds, replay.rounds) == (2, 9)
    with pytest.raises(UsageError, match="expected a run of all 9 rounds, got one that ended early with round 2"):
        plans(history, f.address("coding"), "repair")


def test_a_replay_ends_early_by_its_own_losses(tmp_path: Path) -> None:
    erasable = Erasable.of(tmp_path, rounds=3, patience=1)
    erasable.federation.measures.losses = [3.0, 3.0]
    (signed,) = erase(erasable.context(), asked(erasable, "coding", "replay"))
    assert [record.round for record in records(erasable.run)] == [1, 2]
    assert check(signed, erasable.run, erasable.federation.ledger) == ()
