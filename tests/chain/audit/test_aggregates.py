"""States by themselves: opened, checked, and computed again under every rule."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain.audit.aggregates import StateAudit, svd_tolerance
from chain.audit.erasures import ErasureAudit
from chain.audit.files import Files
from chain.audit.report import Findings, What
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate
from core.canonical import ZERO_DIGEST, Digest
from core.rounds import RoundRecord
from tests.behaviours.runs import LAYOUT, Federation, build


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=1)


def audit_of(federation: Federation, **changes: Any) -> StateAudit:
    run = federation.run
    return StateAudit(run.artifacts, Files(run), federation.genesis, Findings(), **changes)


def founded(federation: Federation, **changes: Any) -> StateAudit:
    audit = audit_of(federation, **changes)
    audit.draw_fresh(update_names(federation), LAYOUT)
    return audit


def update_names(federation: Federation) -> list[Digest]:
    return [admitted.signed.value.update for admitted in first_record(federation).admitted]


def first_record(federation: Federation) -> RoundRecord:
    return next(federation.run.records()).value


def kinds(audit: StateAudit) -> list[str]:
    return [failure.what for failure in audit.findings.failures]


def weighted(audit: StateAudit, record: RoundRecord) -> list[WeightedUpdate]:
    return [
        WeightedUpdate(a.organisation, a.weight, audit.artifacts.open(a.signed.value.update)) for a in record.admitted
    ]


# Opening


def test_an_artifact_is_opened_and_accounted_for(federation: Federation) -> None:
    audit, (name, _) = audit_of(federation), update_names(federation)
    state = audit.open(What.UPDATE, name, "here", federation.genesis.lanes[0])
    assert state is not None
    assert state.digest == name
    assert not [left for left in audit.files.left if audit.artifacts.place(name) in left]
    assert audit.findings.checked["sealed keys"] == 1
    audit.open(What.UPDATE, name, "here", federation.genesis.lanes[0])
    assert audit.findings.checked["sealed keys"] == 1
    assert kinds(audit) == []


def test_an_artifact_that_is_missing_or_sealed_for_too_few_is_named(federation: Federation) -> None:
    members = federation.genesis.lanes[0]
    name = federation.run.artifacts.put(AdapterState({"x": np.ones(1, np.float32)}), members[:1])
    audit = audit_of(federation)
    assert audit.open(What.UPDATE, ZERO_DIGEST, "here") is None
    assert audit.open(What.UPDATE, name, "here", members) is not None
    assert kinds(audit) == [What.UPDATE, What.WRAPS]
    unknown = audit_of(federation, readers_known=False)
    unknown.open(What.UPDATE, name, "here", members)
    assert kinds(unknown) == []


def erasing(federation: Federation, listed: frozenset[Digest], destroyed: frozenset[Digest]) -> ErasureAudit:
    return ErasureAudit(
        federation.genesis, Files(federation.run), Findings(), [], listed, destroyed, *[frozenset[Any]()] * 3
    )


def test_a_destroyed_artifact_needs_an_erasure_that_lists_it(federation: Federation) -> None:
    name, other = update_names(federation)
    federation.run.artifacts.destroy(name)
    for erasures, served, expected in (
        (None, frozenset[Digest](), [What.DESTROYED]),
        (erasing(federation, frozenset({other}), frozenset()), frozenset[Digest](), [What.DESTROYED]),
        (erasing(federation, frozenset({name}), frozenset()), frozenset[Digest](), []),
        (erasing(federation, frozenset({name}), frozenset()), frozenset({name}), [What.DESTROYED]),
    ):
        audit = audit_of(federation, erasures=erasures, served=served)
        assert audit.open(What.UPDATE, name, "here") is None
        assert kinds(audit) == expected


def test_an_artifact_that_an_erasure_destroyed_must_be_gone(federation: Federation) -> None:
    name, _ = update_names(federation)
    gone = erasing(federation, frozenset({name}), frozenset({name}))
    audit = audit_of(federation, erasures=gone)
    audit.open(What.UPDATE, name, "here", federation.genesis.lanes[0])
    assert kinds(audit) == [What.DESTROYED]
    served = audit_of(federation, erasures=gone, served=frozenset({name}))
    served.open(What.UPDATE, name, "here", federation.genesis.lanes[0])
    assert kinds(served) == []


# The adapter before any training


def test_the_shared_a_is_drawn_again_from_the_seed(federation: Federation) -> None:
    audit = founded(federation)
    assert audit.fresh is not None
    assert audit.fresh.digest == federation.fresh.digest
    assert audit.findings.checked["shared A"] == 1
    assert kinds(audit) == []


def test_without_a_layout_the_sizes_are_those_of_the_artifacts(federation: Federation) -> None:
    audit = audit_of(federation)
    audit.draw_fresh(update_names(federation), None)
    assert audit.fresh is not None
    assert audit.fresh.digest == federation.fresh.digest


def test_without_the_stored_a_rounds_can_be_computed_all_the_same(federation: Federation) -> None:
    federation.run.artifacts.destroy(federation.genesis.shared_a)
    audit = audit_of(federation)
    audit.draw_fresh([ZERO_DIGEST, *update_names(federation)], None)
    assert kinds(audit) == [What.DESTROYED]
    assert audit.initial is not None
    assert audit.summable(update_names(federation)[0], audit.initial, "here", federation.genesis.lanes[0])


def test_another_seed_or_rank_is_named(federation: Federation) -> None:
    for changes in ({"seed": 8}, {"rank": 3}):
        other = replace(federation, genesis=replace(federation.genesis, **changes))
        audit = audit_of(other)
        audit.draw_fresh(update_names(federation), None)
        assert kinds(audit) == [What.SHARED_A]


# Updates


def stored(federation: Federation, change: Callable[[dict[str, Any]], object]) -> Digest:
    """An update of the store, changed."""
    (name, _) = update_names(federation)
    arrays = dict(federation.run.artifacts.open(name).arrays)
    change(arrays)
    return federation.run.artifacts.put(AdapterState(arrays), federation.genesis.lanes[0])


NAME = "layers.0.up.lora_B"


@pytest.mark.parametrize(
    ("change", "what", "fact"),
    [
        (lambda a: a.pop(NAME), What.TENSORS, f"without {NAME}"),
        (lambda a: a.update(extra=a[NAME]), What.TENSORS, "with extra"),
        (lambda a: a.update({NAME: a[NAME][:-1]}), What.SHAPE, str((23, 2))),
        (lambda a: a.update({NAME: a[NAME] * np.float32("nan")}), What.FINITE, "NaN"),
        (lambda a: a.update({NAME: a[NAME] * np.float32("inf")}), What.FINITE, "Inf"),
        (lambda a: a.update({NAME: a[NAME] + np.float32(100)}), What.NORM, ""),
    ],
)
def test_an_update_that_cannot_be_summed_is_named(
    federation: Federation, change: Callable[[dict[str, Any]], object], what: What, fact: str
) -> None:
    audit = founded(federation)
    summable = audit.summable(stored(federation, change), audit.initial, "here", federation.genesis.lanes[0])
    assert kinds(audit) == [what]
    assert fact in audit.findings.failures[0].got
    # A norm is a rule of admission; the sum is still computed, so that one bad update is one finding.
    assert (summable is not None) == (what is What.NORM)


# Aggregates


@pytest.mark.parametrize("rule", RULES)
def test_an_aggregate_that_is_the_computed_one_is_counted(tmp_path: Path, rule: str) -> None:
    federation = build(tmp_path / "run", rounds=1, rule=rule)
    audit, record = founded(federation), first_record(federation)
    state = audit.after(record, audit.initial, weighted(audit, record), "here", federation.genesis.lanes[0])
    assert kinds(audit) == []
    assert (audit.findings.recomputed, audit.findings.checked["aggregates"]) == (1, 1)
    assert state is not None
    assert state.digest == record.aggregate


@pytest.mark.parametrize("rule", RULES)
def test_an_aggregate_with_other_weights_is_named_and_gone_on_from(tmp_path: Path, rule: str) -> None:
    federation = build(tmp_path / "run", rounds=1, rule=rule)
    audit, record = founded(federation), first_record(federation)
    updates = [replace(update, weight=0.5) for update in weighted(audit, record)]
    state = audit.after(record, audit.initial, updates, "here", federation.genesis.lanes[0])
    assert What.AGGREGATE in kinds(audit)
    assert audit.findings.recomputed == 0
    assert state is not None
    assert state.digest == record.aggregate


def test_a_residual_that_is_not_the_computed_one_is_named(federation: Federation) -> None:
    audit, record = founded(federation), replace(first_record(federation), residual=0.25)
    audit.after(record, audit.initial, weighted(audit, record), "here", federation.genesis.lanes[0])
    assert kinds(audit) == [What.RESIDUAL]
    assert audit.findings.recomputed == 0


def test_an_aggregate_that_is_missing_is_replaced_by_the_computed_one(federation: Federation) -> None:
    record = first_record(federation)
    federation.run.artifacts.destroy(record.aggregate)
    audit = founded(federation, erasures=erasing(federation, frozenset({record.aggregate}), frozenset()))
    state = audit.after(record, audit.initial, weighted(audit, record), "here", federation.genesis.lanes[0])
    assert kinds(audit) == []
    assert state is not None
    assert state.digest == record.aggregate


def test_without_a_sum_only_the_arrays_of_an_aggregate_are_checked(federation: Federation) -> None:
    audit, record = founded(federation), first_record(federation)
    state = audit.after(record, audit.initial, None, "here", federation.genesis.lanes[0])
    assert (kinds(audit), audit.findings.recomputed) == ([], 0)
    assert state is not None
    odd = replace(record, aggregate=stored(federation, lambda arrays: arrays.pop(NAME)))
    assert audit.after(odd, audit.initial, None, "here", federation.genesis.lanes[0]) is None
    assert kinds(audit) == [What.TENSORS]


def test_the_tolerance_of_svd_follows_from_the_rank_and_float32() -> None:
    assert svd_tolerance(4) == 2 * svd_tolerance(1) == 4 * float(np.finfo(np.float32).eps)
