"""The trust map: facts stand on the rung that the run gives them, and failures belong to the fact they are about."""

from dataclasses import replace

import pytest

from chain.audit.report import AuditReport, Failure, What
from console.web.facts import RUNGS, facts, found_by
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from tests.commands import World

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def run(finished: World) -> RunFolder:
    return State.at(finished.state).existing()


def test_every_rung_is_known_and_every_fact_has_a_reason(run: RunFolder) -> None:
    listed = facts(run, "embedded")
    assert {fact.rung for fact in listed} == set(RUNGS)
    assert all(fact.why and fact.what for fact in listed)
    assert len({fact.id for fact in listed}) == len(listed)


def test_every_kind_of_failure_is_about_one_fact(run: RunFolder) -> None:
    kinds = [kind for fact in facts(run, "embedded") for kind in fact.kinds]
    assert sorted(kinds) == sorted(what.value for what in What)


def test_agreement_by_derived_keys_shows_nothing(run: RunFolder) -> None:
    rungs = {fact.id: fact.rung for fact in facts(run, "embedded")}
    assert rungs["members"] == "self-reported"


@pytest.mark.parametrize(
    ("chain", "said"), [("embedded", "its owner can rebuild it"), ("http://1.2.3.4", "others may run")]
)
def test_an_anchor_says_who_runs_its_chain(run: RunFolder, chain: str, said: str) -> None:
    (anchors,) = [fact for fact in facts(run, chain) if fact.id == "anchors"]
    assert said in anchors.why
    assert run.genesis.chain.contract in anchors.why


def test_a_fact_that_fails_shows_the_first_failure_about_it(run: RunFolder) -> None:
    failures = tuple(
        Failure(what.value, where, got, want)
        for what, where, got, want in (
            (What.AGGREGATE, "round 1", "0x1", "0x2"), (What.AGGREGATE, "round 2", "0x3", "0x4"),
            (What.ANCHOR, "round 2", "none", "one"),
        )
    )  # fmt: skip
    report = AuditReport({"aggregates": 2, "manifests": 6, "updates": 6}, 1, 0, failures)
    found = {fact.id: found_by(fact, report) for fact in facts(run, "embedded") if fact.kinds}
    assert not found["aggregates"].ok
    assert found["aggregates"].expected == "aggregate at round 1: 0x2"
    assert (found["aggregates"].got, found["aggregates"].more) == ("0x1", 1)
    assert not found["anchors"].ok
    assert found["updates"].ok
    assert "6 manifests" in found["updates"].got
    clean = replace(report, failures=())
    assert all(found_by(fact, clean).ok for fact in facts(run, "embedded") if fact.kinds)
