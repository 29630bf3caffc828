from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate
from core.errors import UsageError
from provenance.history import History, StoredRound, stored_rounds
from tests.behaviours.runs import build
from tests.provenance.conftest import organisation

ANN, BOB, EVE = map(organisation, range(3))
FRESH = AdapterState({"m.lora_A": np.ones((1, 2), np.float32), "m.lora_B": np.zeros((2, 1), np.float32)})


def update(number: int, weight: float, value: float) -> WeightedUpdate:
    return WeightedUpdate(organisation(number), weight, AdapterState({"m.lora_B": np.full((2, 1), value, np.float32)}))


def done(*updates: WeightedUpdate) -> StoredRound:
    return StoredRound(lambda: FRESH, lambda: FRESH, updates)


FIRST, SECOND, OTHER = done(update(1, 0.5, 2), update(0, 0.5, 4)), done(update(0, 1.0, 8)), done(update(2, 1.0, 1))
HISTORY = History(RULES["frozen-a"], FRESH, ((FIRST, SECOND), (OTHER,)))


def test_organisations_are_all_and_candidates_those_of_the_last_rounds() -> None:
    assert HISTORY.organisations == (ANN, BOB, EVE)
    assert HISTORY.candidates == (ANN, EVE)
    assert HISTORY.modules == ("m",)


def test_updates_come_lane_by_lane_and_round_by_round() -> None:
    found = [(index, done, update.organisation) for index, done, update in HISTORY.updates((EVE, ANN))]
    assert found == [(1, FIRST, ANN), (1, SECOND, ANN), (0, OTHER, EVE)]


def test_a_total_is_the_weighted_sum_over_rounds() -> None:
    assert HISTORY.total(ANN, ("m.lora_B",))["m.lora_B"].tolist() == [[0.5 * 4 + 8], [0.5 * 4 + 8]]
    assert HISTORY.total(BOB, ("m.lora_B",))["m.lora_B"].dtype == np.float64


def test_a_history_without_updates_is_refused() -> None:
    with pytest.raises(UsageError, match="there are no contributions"):
        replace(HISTORY, lanes=((done(),), ()))


def test_rounds_are_read_from_a_run_with_the_share_of_their_lane(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=2, organisations=3)
    rounds = stored_rounds(federation.run, 0, 0.5, federation.fresh)
    records = [signed.value for signed in federation.run.lineage(0)]
    for found, record in zip(rounds, records, strict=True):
        assert [u.organisation for u in found.updates] == [a.organisation for a in record.admitted]
        assert [u.weight for u in found.updates] == [a.weight / 2 for a in record.admitted]
        assert [u.state.digest for u in found.updates] == [a.signed.value.update for a in record.admitted]
        assert found.after().digest == record.aggregate
    assert rounds[0].before() == RULES["frozen-a"].initial(federation.fresh)
    assert rounds[1].before() == rounds[0].after()
