"""The audit of a run whose older aggregates were pruned: as strict as before, and nothing is guessed."""

from dataclasses import replace
from pathlib import Path

import pytest

from chain.audit.report import AuditReport, What
from chain.audit.run import verify
from core.canonical import Digest, to_json
from core.pruned import Pruned
from core.rounds import RoundRecord
from core.storage.artifacts import KEYS, SEALED
from core.storage.blobs import write
from core.storage.retention import prunable
from core.storage.run_folder import PRUNED
from tests.behaviours.runs import Federation, Lies, build


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=5, organisations=3)


def audited(federation: Federation) -> AuditReport:
    return verify(federation.run, federation.ledger, strict=True)


def kinds(report: AuditReport) -> list[str]:
    return [failure.what for failure in report.failures]


def aggregates(federation: Federation) -> list[Digest]:
    return [signed.value.aggregate for signed in federation.run.lineage(0)]


def listed(federation: Federation, *names: Digest) -> None:
    """Say that states were pruned, as a coordinator could by hand."""
    run = federation.run
    run.artifacts.remove_document(PRUNED)
    write(run.folder / PRUNED, to_json(Pruned(tuple(sorted(names))).to_dict()))
    run.artifacts.put_document(PRUNED, (run.folder / PRUNED).read_bytes())


def test_every_round_is_still_computed_again(federation: Federation) -> None:
    before = audited(federation)
    federation.run.prune(prunable(federation.run, 2))
    report = audited(federation)
    assert report.failures == before.failures == ()
    assert (report.recomputed, report.attested) == (before.recomputed, 0) == (5, 0)
    assert report.checked["pruned aggregates"] == 3
    names = federation.run.blobs.names()
    assert not [name for name in names for gone in aggregates(federation)[:3]
                if name.startswith(federation.run.artifacts.place(gone))]  # fmt: skip


def test_pruning_again_adds_to_the_list_and_changes_nothing_else(federation: Federation) -> None:
    federation.run.prune(prunable(federation.run, 4))
    federation.run.prune(prunable(federation.run, 2))
    assert federation.run.pruned.aggregates == tuple(sorted(aggregates(federation)[:3]))
    federation.run.prune(prunable(federation.run, 2))
    assert audited(federation).ok


def test_a_missing_aggregate_that_is_not_listed_is_a_failure(federation: Federation) -> None:
    federation.run.prune(prunable(federation.run, 3))
    federation.run.artifacts.remove(aggregates(federation)[2])
    assert kinds(audited(federation)) == [What.AGGREGATE]


def test_a_list_excuses_no_update_and_no_state_that_something_begins_with(federation: Federation) -> None:
    update = next(federation.run.records()).value.admitted[0].signed.value.update
    listed(federation, update)
    federation.run.artifacts.remove(update)
    assert What.UPDATE in kinds(audited(federation))


def test_a_pruned_state_that_the_updates_do_not_give_is_a_failure(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=4, organisations=3)
    first, update = aggregates(federation)[0], next(federation.run.records()).value.admitted[0].signed.value.update
    federation.run.prune([first])
    federation.run.artifacts.remove(update)
    report = audited(federation)
    assert kinds(report)[:2] == [What.UPDATE, What.PRUNED]


def test_a_false_digest_is_found_although_its_state_is_pruned(tmp_path: Path) -> None:
    def lie(federation: Federation, record: RoundRecord) -> RoundRecord:
        false = federation.run.artifacts.put(federation.update(0, "nobody"))
        return replace(record, aggregate=false) if record.round == 1 else record

    federation = build(tmp_path / "run", rounds=4, organisations=3, lies=Lies(record=lie))
    federation.run.prune([aggregates(federation)[0]])
    assert What.AGGREGATE in kinds(audited(federation))


def test_a_crash_while_pruning_leaves_a_run_that_holds(federation: Federation) -> None:
    run, (first, second, *_) = federation.run, aggregates(federation)
    listed(federation, first, second)
    run.blobs.remove(run.artifacts.place(first) + KEYS)  # and its bytes are still there
    assert run.blobs.has(run.artifacts.place(first) + SEALED)
    assert audited(federation).failures == ()
    run.prune(prunable(run, 2))
    assert not run.blobs.has(run.artifacts.place(first) + SEALED)
    assert audited(federation).ok


def test_a_list_of_another_form_is_named(federation: Federation) -> None:
    federation.run.prune(prunable(federation.run, 2))
    (federation.run.folder / PRUNED).write_bytes(b'{"aggregates": []}')
    assert What.PRUNED in kinds(audited(federation))


def test_a_round_below_its_quorum_keeps_a_pruned_state(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=5, organisations=3, failed={(0, 2): 1})
    federation.run.prune(prunable(federation.run, 2))
    assert audited(federation).failures == ()
