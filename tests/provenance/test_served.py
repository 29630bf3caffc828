"""From a run folder to a trace: what is loaded is replaced, what is asked is real."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.composition import Composition, Part
from core.errors import UsageError
from provenance import served
from provenance.ensemble import EnsembleSubject
from provenance.method import Subject
from tests.behaviours.runs import Federation, build
from tests.provenance.small_subjects import FIRST, log_linear


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return build(Path(tmp_path_factory.mktemp("run")) / "run", rounds=1, organisations=2)


def serve(monkeypatch: pytest.MonkeyPatch, kind: str, count: int) -> list[Any]:
    """A run that serves `count` adapters; returns what subjects were made of."""
    subject, made = log_linear(), list[Any]()
    composition = Composition(kind, tuple(Part(1 / count, subject.adapter) for _ in range(count)))
    serving = SimpleNamespace(
        model=subject.model, state=SimpleNamespace(digest="0xserved"), adapter=composition, lanes=(0, 2)
    )
    monkeypatch.setattr(served, "serving", lambda *_: serving)
    monkeypatch.setattr(Subject, "of", lambda *arguments: made.append(arguments) or subject)
    return made


def test_a_single_adapter_is_a_subject(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    made = serve(monkeypatch, "sum", 1)
    assert isinstance(served.subject(federation.run), Subject)
    ((run, _, digest, _),) = made
    assert (run, digest) == (federation.run, "0xserved")


def test_independently_trained_lanes_are_a_subject_each(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = serve(monkeypatch, "ensemble", 2)
    found = served.subject(federation.run)
    assert isinstance(found, EnsembleSubject)
    assert len(found.lanes) == 2
    assert [lane for *_, lane in made] == [0, 2]


def test_a_member_without_a_part_is_named(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "subject", lambda *_: None)
    monkeypatch.setattr(served, "attribute", lambda *_: SimpleNamespace(organisations=(FIRST,)))
    assert served.trace(federation.run, "Why?", None, organisation=FIRST).organisations == (FIRST,)
    member = federation.genesis.organisations[0]
    with pytest.raises(UsageError, match=f"{member.name} has no part in what is served"):
        served.trace(federation.run, "Why?", None, organisation=member.address)


@pytest.mark.parametrize(
    ("prompt", "method", "error"),
    [
        (" ", "gradient", "expected a question"),
        ("Why?", "guess", "expected one of gradient, .*, got 'guess'"),
        ("caf\udce9", "gradient", r"prompt: expected Unicode text, got \\udce9 alone"),
    ],
)
def test_a_wrong_question_is_refused_before_anything_is_loaded(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, prompt: str, method: str, error: str
) -> None:
    monkeypatch.setattr(served, "serving", None)
    with pytest.raises(UsageError, match=error):
        served.trace(federation.run, prompt, None, method)
