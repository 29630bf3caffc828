"""The amounts behind every root of credit lie with the run, and are what its rounds have paid."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agents.rewards import cumulative
from chain.audit.report import AuditReport
from chain.audit.run import verify
from core.canonical import Digest, to_json
from core.credit import CreditTree
from core.storage.blobs import write
from core.storage.run_folder import epoch_name
from tests import federation as f
from tests.chain.audit.test_selection import run
from tests.server_app.clients import Federation


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return run(tmp_path_factory.mktemp("paid"), "ucb")


def tree_of(world: Federation, **more: float) -> CreditTree:
    """What the run has paid, and `more` to some."""
    paid = cumulative(world.run)
    return CreditTree.of(world.genesis.digest, paid | {f.address(name): amount for name, amount in more.items()})


def audited(world: Federation, *posted: CreditTree, strict: bool = True) -> AuditReport:
    """The audit once these were kept and their roots posted."""
    run = world.run.read_with(f.COORDINATOR)
    for path in (run.folder / "epochs").glob("*"):
        run.artifacts.remove_document(f"epochs/{path.name}")
        path.unlink()
    world.ledger.credit_roots.clear()
    for number, tree in enumerate(posted, start=1):
        run.keep_epoch(number, tree)
        world.ledger.credit_roots[world.genesis.digest, number] = tree.root
    return verify(run, world.ledger, strict=strict)


def found(report: AuditReport) -> set[tuple[str, str]]:
    return {(failure.what, failure.where) for failure in report.failures}


def test_every_epoch_that_was_posted_can_be_claimed_and_the_newest_is_what_was_paid(world: Federation) -> None:
    report = audited(world, tree_of(world, coding=0.5), tree_of(world))
    assert report.failures == ()
    assert report.checked["credit epochs"] == 2
    kept = world.run.epochs()
    assert (list(kept), kept[2]) == ([1, 2], tree_of(world))


def test_amounts_that_the_rounds_have_not_paid_are_found(world: Federation) -> None:
    posted = tree_of(world), tree_of(world, coding=99.0)
    assert found(audited(world, *posted)) == {("credit", "the newest epoch")}
    assert not found(audited(world, *posted, strict=False)), "a run in progress may have paid since"


def without(path: Path) -> None:
    path.unlink()


def of_another_run(path: Path) -> None:
    write(path, to_json(CreditTree(f.other("run"), {}).to_dict()))


def of_a_stranger(path: Path) -> None:
    write(path, to_json(CreditTree(f.genesis().digest, {f.address("stranger"): 1}).to_dict()))


def malformed(path: Path) -> None:
    write(path, to_json({"run": f.other("run"), "cumulative": {f.address("coding"): 5}}))


@pytest.mark.parametrize("change", [without, of_another_run, of_a_stranger, malformed])
def test_amounts_that_are_missing_or_others_are_found(world: Federation, change: Callable[[Path], None]) -> None:
    audited(world, tree_of(world))
    run = world.run.read_with(f.COORDINATOR)
    change(run.folder / epoch_name(1))
    assert ("credit", epoch_name(1)) in found(verify(run, world.ledger))


def test_amounts_of_a_root_that_the_ledger_lacks_are_found(world: Federation) -> None:
    audited(world, tree_of(world))
    world.ledger.credit_roots[world.genesis.digest, 1] = Digest(f.other("root"))
    assert found(verify(world.run.read_with(f.COORDINATOR), world.ledger)) == {("credit", epoch_name(1))}


def test_an_epoch_behind_one_that_is_missing_is_a_file_that_nothing_asks_for(world: Federation) -> None:
    audited(world, tree_of(world))
    run = world.run.read_with(f.COORDINATOR)
    run.keep_epoch(3, tree_of(world))
    assert ("unexpected file", epoch_name(3)) in found(verify(run, world.ledger))
