"""What an organisation checks before it trains; no model is needed for it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from client_app.checks import check_federation, check_served, check_state
from core.adapter import AdapterState
from core.aggregation import RULES
from core.composition import Composition, Part
from core.errors import ForgeryError, IntegrityError
from core.generations import GenerationRecord
from core.keys import derive
from core.messages.training import Task
from core.origins import FormerRun
from core.rounds import Best, Salts
from core.update import Organisation
from core.wire import Rounded, to_send
from tests import federation as f

GENESIS = f.genesis()
FRESH = f.fresh()
INITIAL = RULES[GENESIS.rule].initial(FRESH)
STATE = f.delta(INITIAL.shapes, "after round 1")
SERVED = Composition.of(STATE)
RECORD = f.record(GENESIS, aggregate=STATE.digest)
MEDICAL = GENESIS.organisation(f.address("medical"))
FIRST = Task(GENESIS, f.address("medical"), 0, 0, 1, (), None, None, Composition.of(INITIAL))
SALTS = Salts.draw(RECORD)
SECOND = Task(GENESIS, f.address("medical"), 0, 0, 2, (), RECORD.sign(f.COORDINATOR, GENESIS.chain), SALTS, SERVED)


def checked(task: Task, **changes: Any) -> None:
    values = {"organisation": MEDICAL, "base": GENESIS.base.digest, "fresh": FRESH} | changes
    check_federation(task, **values)
    check_state(task, values["fresh"])


def evaluation(kind: str, parts: tuple[AdapterState, ...], said: str = "ensemble") -> Task:
    """Medical, alone in the first of two lanes, is asked to measure these parts."""
    lanes = ((f.address("medical"),), tuple(o.address for o in GENESIS.organisations if o.name != "medical"))
    genesis = replace(GENESIS, lanes=lanes, composition=said)
    parent = replace(RECORD, genesis=genesis.digest).sign(f.COORDINATOR, genesis.chain)
    served = Composition(kind, tuple(Part(1 / len(parts), state) for state in parts))
    return replace(SECOND, genesis=genesis, parent=parent, served=served)


@pytest.mark.parametrize("kind", ["ensemble", "routing"])
def test_what_is_served_of_lanes_has_ones_own_as_it_was_signed(kind: str) -> None:
    check_served(evaluation(kind, (INITIAL, STATE), said=kind), FRESH)
    check_served(evaluation("sum", (STATE,), said=kind), FRESH)  # nobody else is left
    check_served(evaluation("sum", (INITIAL,), said="sum"), FRESH)  # a sum is nobody's signed state
    check_served(SECOND, FRESH)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (evaluation("ensemble", (INITIAL, INITIAL)), "state: expected"),
        (evaluation("sum", (INITIAL,)), "state: expected"),
        (evaluation("routing", (INITIAL, STATE)), "composition: expected ensemble, got routing"),
        (evaluation("ensemble", (INITIAL, STATE), said="sum"), "composition: expected sum, got ensemble"),
        (replace(SECOND, served=Composition.of(INITIAL)), "state: expected"),
        (
            replace(SECOND, served=Composition("ensemble", (Part(0.5, STATE),) * 2)),
            "composition: expected sum, got ensemble",
        ),
    ],
)
def test_what_is_served_without_ones_own_lane_is_refused(task: Task, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        check_served(task, FRESH)


def test_a_state_that_is_sent_rounded_is_the_one_that_the_record_says_is_sent() -> None:
    genesis = replace(GENESIS, wire="nf4")
    sent = to_send(STATE, "nf4").state
    record = replace(RECORD, genesis=genesis.digest, **Rounded.of(STATE, "nf4")._asdict())
    parent = record.sign(f.COORDINATOR, genesis.chain)
    task = replace(SECOND, genesis=genesis, parent=parent, served=Composition.of(sent))
    for check in (check_state, check_served):
        check(task, FRESH)
        for other in (STATE, INITIAL):
            with pytest.raises(IntegrityError, match="state: expected"):
                check(replace(task, served=Composition.of(other)), FRESH)


def test_before_round_1_a_factor_that_is_drawn_is_rounded_here_too() -> None:
    genesis = replace(f.genesis(rule="fedavg"), wire="nf4")
    sent = Composition.of(to_send(FRESH, "nf4").state)
    check_state(replace(FIRST, genesis=genesis, served=sent), FRESH)
    with pytest.raises(IntegrityError, match="state: expected"):
        check_state(replace(FIRST, genesis=genesis, served=Composition.of(FRESH)), FRESH)


def best_served(served: AdapterState, patience: int = 0) -> Task:
    """Round 3 has followed round 2, and the best is round 1: it is what the third one's record says."""
    genesis = replace(GENESIS, serve="best", patience=patience, training=replace(GENESIS.training, rounds=9))
    record = replace(
        RECORD, genesis=genesis.digest, round=3, aggregate=INITIAL.digest, validation_loss=3.0,
        best=Best(1, STATE.digest, 2.0),
    )  # fmt: skip
    parent = record.sign(f.COORDINATOR, genesis.chain)
    return replace(SECOND, genesis=genesis, round=4, parent=parent, served=Composition.of(served))


def test_what_is_served_is_of_the_best_round_and_what_is_trained_of_the_last() -> None:
    check_served(best_served(STATE), FRESH)
    check_state(best_served(INITIAL), FRESH)
    with pytest.raises(IntegrityError, match="state: expected"):
        check_served(best_served(INITIAL), FRESH)
    with pytest.raises(IntegrityError, match="state: expected"):
        check_state(best_served(STATE), FRESH)


def test_no_round_is_trained_where_training_ended_early() -> None:
    check_state(best_served(INITIAL, patience=3), FRESH)
    with pytest.raises(IntegrityError, match="round: expected none behind round 3, where training ended early"):
        check_state(best_served(INITIAL, patience=2), FRESH)


@pytest.mark.parametrize("task", [FIRST, SECOND], ids=["first round", "second round"])
def test_an_honest_task_passes(task: Task) -> None:
    checked(task)


def _genesis(**changes: Any) -> Callable[[], Task]:
    return lambda: replace(FIRST, genesis=replace(GENESIS, **changes))


def _signed(**changes: Any) -> Callable[[], Task]:
    return lambda: replace(SECOND, parent=replace(RECORD, **changes).sign(f.COORDINATOR, GENESIS.chain))


def _without_medical() -> Task:
    return replace(FIRST, genesis=f.genesis(("coding", "financial")))


def _repaired(number: int, rounds: int) -> Task:
    """Medical is asked for a round of a generation that says how many it has."""
    opening = GenerationRecord(
        GENESIS.digest, 0, 1, 0, 0, GENESIS.digest, RECORD.digest, rounds, f.other("erasure"), GENESIS.lanes[0]
    )
    parent = replace(RECORD, generation=1, round=number - 1).sign(f.COORDINATOR, GENESIS.chain)
    openings = (opening.sign(f.COORDINATOR, GENESIS.chain),)
    return replace(SECOND, generation=1, round=number, openings=openings, parent=parent)


def test_the_last_round_of_a_repair_passes() -> None:
    checked(_repaired(6, rounds=6))


CHEATS: dict[str, tuple[str, Callable[[], Task]]] = {
    "a federation that it is no member of": ("organisation in the genesis: .* got None", _without_medical),
    "a genesis that counts its examples wrong": (
        "organisation in the genesis: .* got .* examples=1,",
        _genesis(organisations=tuple(replace(o, examples=1) for o in GENESIS.organisations)),
    ),
    "a lane that is not its own": ("lane: expected 0, got 1", lambda: replace(FIRST, lane=1)),
    "another base model": ("base model: expected", _genesis(base=replace(GENESIS.base, digest=f.other("base")))),
    "another shared A": ("shared A: expected", _genesis(shared_a=f.other("A"))),
    "a first state that is not zero": ("state: expected", lambda: replace(FIRST, served=SERVED)),
    "a later round without a record": (
        "round without a parent record: expected 1, got 2",
        lambda: replace(FIRST, round=2),
    ),
    "another state than was recorded": ("state: expected", lambda: replace(SECOND, served=Composition.of(INITIAL))),
    "a record of another lane": ("parent's lane: expected 0, got 1", _signed(lane=1)),
    "a record of another generation": ("parent's generation: expected 0, got 1", _signed(generation=1)),
    "a record of an earlier round": ("parent's round: expected 2, got 1", lambda: replace(SECOND, round=3)),
    "a round behind the last": ("round: expected at most 2, got 3", lambda: replace(_signed(round=2)(), round=3)),
    "a round behind those of a repair": ("round: expected at most 6, got 7", lambda: _repaired(7, rounds=6)),
    "more rounds than a repair adds": (
        "rounds of generation 1: expected at most 6, got 7",
        lambda: _repaired(7, rounds=7),
    ),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_an_organisation_refuses(cheat: str) -> None:
    message, make = CHEATS[cheat]
    with pytest.raises(IntegrityError, match=message):
        checked(make())


def test_a_record_that_the_coordinator_did_not_sign_is_refused() -> None:
    forged = RECORD.sign(derive(1, "mallory"), GENESIS.chain)
    with pytest.raises(ForgeryError, match="round record: expected the signature of"):
        checked(replace(SECOND, parent=forged))


def test_a_record_of_another_federation_is_refused() -> None:
    elsewhere = f.genesis(seed=8)
    with pytest.raises(ForgeryError, match="expected federation"):
        checked(replace(SECOND, genesis=elsewhere))


def test_the_base_that_is_loaded_here_counts_not_the_one_that_is_named() -> None:
    with pytest.raises(IntegrityError, match="base model: expected"):
        checked(FIRST, base=f.other("tampered weights"))


def test_the_a_that_is_drawn_here_counts() -> None:
    other = AdapterState({name: -array for name, array in FRESH.arrays.items()})
    with pytest.raises(IntegrityError, match="shared A: expected"):
        checked(FIRST, fresh=other)


def test_a_derived_key_is_not_passed_off_as_a_real_one() -> None:
    assert MEDICAL is not None
    real = Organisation(MEDICAL.address, MEDICAL.name, MEDICAL.examples, derived=False)
    with pytest.raises(IntegrityError, match="organisation in the genesis"):
        checked(FIRST, organisation=real)


def test_the_first_state_is_that_of_the_run_that_the_genesis_goes_on_from() -> None:
    origin = FormerRun("before", f.other("genesis"), f.other("record"), STATE.digest, GENESIS.seed)
    genesis = replace(GENESIS, origin=origin)
    checked(replace(FIRST, genesis=genesis, served=Composition.of(STATE)))
    for wrong in (replace(FIRST, genesis=genesis), replace(FIRST, served=Composition.of(STATE))):
        with pytest.raises(IntegrityError, match="state: expected"):
            checked(wrong)
