"""What the served model answers after each round: which questions, which model, and what is written of it."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from core.canonical import Digest
from core.composition import Composition
from core.config import RunConfig
from core.storage.events import EventLog
from llm.batches import encode_prompt
from llm.evaluate import generate
from llm.model import Model, ModelSpec, load
from llm.records import Collection, Message, OrganisationData, Record
from llm.served import shared_adapter
from server_app import sample_answers
from server_app.sample_answers import MOST_TOKENS, SampleAnswers
from tests.llm.conftest import question
from tests.server_app.worlds import make_world

LATER = Record((Message("user", "Hello"), Message("assistant", "Hello."), Message("user", "And?")), "No.")


@pytest.fixture(scope="module")
def model(base: Path) -> Model:
    return load(ModelSpec(str(base), "none", 2, 4.0))


def of(model: Model, data: Collection, log: Path, most: int = 2, **more: Any) -> SampleAnswers:
    config = replace(RunConfig(), rank=2, sample_answers=most)
    return replace(SampleAnswers.of(config, model, shared_adapter(model, 2, 7), data, EventLog(log)), **more)


def in_domain(name: str, *texts: str) -> tuple[Record, ...]:
    return tuple(replace(question(text, "yes"), domain=name) for text in texts)


def test_the_first_question_of_each_domain_is_asked_up_to_the_setting(model: Model, tmp_path: Path) -> None:
    validation = (*in_domain("b", "b 1?", "b 2?"), *in_domain("a", "a 1?"), *in_domain("c", "c 1?"))
    data = Collection((OrganisationData("own", (), (question("own 1?", "yes"),)),), validation, ())
    assert [r.prompt[0].content for r in of(model, data, tmp_path / "log").questions.values()] == ["b 1?", "a 1?"]
    assert of(model, data, tmp_path / "log", 0).questions == {}


def test_without_a_validation_set_each_organisation_s_held_out_records_are_asked(model: Model, tmp_path: Path) -> None:
    long = question("x" * (model.context_length - MOST_TOKENS), "yes")
    data = Collection((OrganisationData("own", (), (LATER, Record((), "Text."), long, question("1?", "yes"))),), (), ())
    asked = of(model, data, tmp_path / "log").questions
    assert {name: record.prompt[0].content for name, record in asked.items()} == {"own": "1?"}
    assert len(encode_prompt(model.tokenizer, "1?")) + MOST_TOKENS <= model.context_length


def test_a_round_is_passed_over_while_answers_take_more_than_their_share(model: Model, tmp_path: Path) -> None:
    seconds = count(0.0)  # the clock goes on by one each time it is read: answers take a second
    samples = of(model, Collection((), in_domain("a", "a 1?"), ()), tmp_path / "log", clock=lambda: next(seconds))
    state = Composition.of(samples.rule.initial(samples.fresh))
    for number in range(1, 101):
        samples.tell(number, state)
    rounds = [event["round"] for event in EventLog.read(tmp_path / "log")[0]]
    assert rounds == [0, 1, 19, 38, 57, 76, 95]  # a twentieth of the seconds


def test_the_served_model_answers_and_before_the_first_round_the_base(model: Model, tmp_path: Path) -> None:
    samples = of(model, Collection((), in_domain("a", "a 1?"), ()), tmp_path / "log", clock=lambda: 0.0)
    fresh = samples.fresh
    state = samples.rule.initial(fresh)
    moved = type(state)({name: array + 0.5 for name, array in state.arrays.items()})
    samples.tell(1, Composition.of(moved))
    samples.tell(2, Composition.of(moved))
    events, _ = EventLog.read(tmp_path / "log")
    assert [(event["round"], event["aggregate"]) for event in events] == [
        (0, None),
        (1, moved.digest),
        (2, moved.digest),
    ]
    for event, adapter in zip(events, (None, *[samples.rule.adapter(moved, fresh)] * 2), strict=True):
        tokens = generate(model, adapter, "a 1?", MOST_TOKENS)
        text = model.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert event["answers"] == [{"of": "a", "question": "a 1?", "expected": "yes", "answer": text}]
    assert events[0]["answers"] != events[1]["answers"]


def test_a_run_tells_them_after_its_rounds_and_is_the_same_without(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_answers, "MOST_SHARE", 1.0)
    heads: list[Digest | None] = []
    for most in (1, 0):
        world = make_world(tmp_path / str(most), base, data, monkeypatch)
        run = world.run("run", **{"sample-answers": most})
        told = [event["round"] for event in world.events("run", "answered")]
        assert told == ([0, 1, 2] if most else [])
        heads.append(run.lineage(0)[-1].value.aggregate)
    assert heads[0] == heads[1]
