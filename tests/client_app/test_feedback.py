"""What compression leaves out stays at home, and the next update makes up for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client_app.feedback import FED_BACK, Feedback
from core.adapter import AdapterState
from core.errors import FormatError, ModelError
from core.round_key import RoundKey
from core.wire import DOWN, Packed
from tests import federation as f

SHAPES = {"a.lora_B": (40, 16), "b.lora_B": (30, 16)}
KEY = RoundKey(f.genesis().digest, 0, 0, 1)
UPDATES = [f.delta(SHAPES, number) for number in range(6)]


def at(number: int, generation: int = 0) -> RoundKey:
    return replace(KEY, generation=generation, round=number)


def total(states: list[AdapterState]) -> AdapterState:
    return AdapterState({name: np.sum([state[name] for state in states], axis=0, dtype="<f8") for name in SHAPES})


def test_what_was_sent_and_what_is_left_add_up_to_what_was_trained(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path, "sparse")
    sent = [feedback.pack(update, at(number)).state for number, update in enumerate(UPDATES, 1)]
    newest = feedback.before(0, 99)
    assert newest
    left = AdapterState.from_bytes(newest.read_bytes())
    for name in SHAPES:
        assert np.allclose(total([*sent, left])[name], total(UPDATES)[name], atol=1e-5)
    assert left.norm > 0
    plain = total([Packed.of(update, "sparse").state for update in UPDATES])
    assert sent[1] != Packed.of(UPDATES[1], "sparse").state
    assert len(feedback.saved()) == len(UPDATES)
    # Six times the same direction: what one update has no place for comes with a later one.
    again = [feedback.pack(UPDATES[0], at(number, 5)).state for number in range(1, 7)]
    assert np.count_nonzero(total(again)["a.lora_B"]) > 2 * np.count_nonzero(plain["a.lora_B"]) / 6


def test_a_round_that_is_asked_for_again_gives_the_same_update(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path, "sparse")
    feedback.pack(UPDATES[0], at(1))
    first = feedback.pack(UPDATES[1], at(2))
    assert Feedback(tmp_path, "sparse").pack(UPDATES[1], at(2)).data == first.data
    feedback.pack(UPDATES[2], at(3))
    assert feedback.pack(UPDATES[1], at(2)).data == first.data


def test_behind_an_erasure_a_round_begins_from_what_was_left_before_it(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "erased", "sparse")
    for number, update in enumerate(UPDATES, 1):
        feedback.pack(update, at(number))
    never = Feedback(tmp_path / "never", "sparse")
    for number in (1, 2):
        never.pack(UPDATES[number - 1], at(number))
    assert feedback.delete_after(2, 1) == 4
    # Bit for bit the update of a run in which those rounds never took place.
    assert feedback.pack(UPDATES[5], at(3, 1)).data == never.pack(UPDATES[5], at(3)).data


@pytest.mark.parametrize("wire", sorted(set(DOWN) - FED_BACK))
def test_other_forms_leave_nothing_behind(tmp_path: Path, wire: str) -> None:
    feedback = Feedback(tmp_path, wire)
    assert feedback.pack(UPDATES[0], at(1)).data == Packed.of(UPDATES[0], wire).data
    assert not feedback.saved()


@pytest.mark.parametrize("wire", sorted(set(DOWN) - {"fp32"}))
def test_an_update_that_diverged_is_a_failure_of_its_own(tmp_path: Path, wire: str) -> None:
    nowhere = AdapterState({name: np.full(shape, np.nan, np.float32) for name, shape in SHAPES.items()})
    with pytest.raises(ModelError, match="training diverged"):
        Feedback(tmp_path, wire).pack(nowhere, at(1))
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path, "sparse")
    feedback.pack(UPDATES[0], at(1))
    (path,) = feedback.saved().values()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError):
        feedback.pack(UPDATES[1], at(2))
