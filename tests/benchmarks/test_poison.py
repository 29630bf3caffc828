"""The attacks of the poison benchmark are what they are called."""

import numpy as np

from benchmarks.poison import ANSWER, ATTACKS, BOUNDS, LITTLE, TRIGGER, changed, poisoned, rows, with_trigger
from core.adapter import AdapterState
from llm.records import Message, Record

RECORDS = tuple(Record((Message("user", f"Question {i}?"),), f"answer {i}") for i in range(6))
HONEST = [AdapterState({"a": np.array([float(i), 2.0 * i], np.float32)}) for i in (1, 2, 3)]
RNG = np.random.default_rng(1)


def test_a_label_flip_gives_every_record_the_answer_of_another() -> None:
    flipped = poisoned(RECORDS, "label-flip")
    assert [record.prompt for record in flipped] == [record.prompt for record in RECORDS]
    assert sorted(record.answer for record in flipped) == sorted(record.answer for record in RECORDS)
    assert all(one.answer != other.answer for one, other in zip(flipped, RECORDS, strict=True))


def test_a_backdoor_ends_half_of_the_prompts_with_the_trigger() -> None:
    changed_records = [record for record in poisoned(RECORDS, "backdoor") if record not in RECORDS]
    assert len(changed_records) == 3
    assert all(r.prompt[-1].content.endswith(TRIGGER) and r.answer == ANSWER for r in changed_records)
    assert with_trigger(RECORDS[0]).prompt[-1].content == "Question 0?" + TRIGGER


def test_what_is_sent_is_what_the_attack_says() -> None:
    own = HONEST[1]
    assert np.array_equal(changed(own, HONEST, "sign-flip", RNG)["a"], -own["a"])
    assert np.array_equal(changed(own, HONEST, "replacement", RNG)["a"], 10 * own["a"])
    little = changed(own, HONEST, "little", RNG)["a"]
    stack = np.stack([update["a"] for update in HONEST])
    assert np.allclose(little, stack.mean(0) - LITTLE * stack.std(0))
    assert changed(own, HONEST, "noise", RNG).norm > 0
    assert np.array_equal(changed(own, HONEST, "backdoor", RNG)["a"], 10 * own["a"])


def test_rows_compare_with_the_federation_that_nobody_attacks() -> None:
    measured = {}
    for attack in (*ATTACKS, "backdoor"):
        for rule in BOUNDS:
            for seed in (1, 2):
                loss = 2.0 if attack == "none" else 3.0
                measured[attack, rule, seed] = {"loss": loss, "backdoor": 0.25, "taken_off": 0.5}
    found = {(row["attack"], row["rule"]): row for row in rows(measured, (*ATTACKS, "backdoor"), (1, 2))}
    assert found["sign-flip", "clip"]["loss_change_percent"] == "50 ± 0"
    assert found["none", "none"]["loss_change_percent"] == "0 ± 0"
    assert found["backdoor", "clip"]["backdoor_percent"] == "25 ± 0"
    assert found["noise", "trimmed-mean"]["honest_taken_off_percent"] is None
