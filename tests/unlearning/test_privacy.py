"""A federation that counts its privacy loss: it ends, its certificates carry ε, and who has spent it abstains."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from chain.audit.run import verify
from core.canonical import Address
from core.errors import UsageError
from core.keys import derive
from core.privacy import PrivacyPlan, claimed
from core.round_key import RoundKey
from core.rounds import RoundRecord
from core.storage import jsonl
from core.storage.run_folder import RunFolder
from tests import federation as f
from tests.server_app.worlds import World, make_world
from unlearning.certificate import ErasureCertificate, read_certificate
from unlearning.check import CertificateCheck, check
from unlearning.lineage import Lineage

CODING, FINANCIAL = (derive(7, name).address for name in ("coding", "financial"))
PRIVATE = {"dp-epsilon": 3.0, "dp-reserve": 4}


def trained(run: RunFolder, generation: int) -> list[RoundRecord]:
    return [signed.value for signed in run.records() if signed.value.generation == generation]


def spent(run: RunFolder, organisation: Address, rounds: int) -> float:
    plan = PrivacyPlan.of(run.genesis, organisation)
    assert plan
    return plan.spent(rounds * plan.steps)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Iterator[World]:
    """Two rounds of four organisations."""
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(tmp_path_factory.mktemp("private") / "state", base, data, patch)
        world.run("private", **PRIVATE)
        yield world


@pytest.fixture(scope="module")
def certified(
    private: World, tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path
) -> Iterator[tuple[RunFolder, ErasureCertificate, World]]:
    """A copy of which coding was erased by a replay, after financial had spent all that it had."""
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(tmp_path_factory.mktemp("certified") / "state", base, data, patch)
        world.take_over(private)
        yield *erased_by_replay(world), world


def erased_by_replay(world: World) -> tuple[RunFolder, ErasureCertificate]:
    run = world.state.run("private")
    plan = PrivacyPlan.of(run.genesis, FINANCIAL)
    assert plan
    used = 2 * plan.steps
    entry = {"key": asdict(RoundKey(run.genesis.digest, 0, 0, 2)), "inputs": f.other("a"), "steps": plan.most - used}
    jsonl.append(world.state.privacy(run.genesis.digest, FINANCIAL), entry)
    run = world.run("private", mode="unlearn", organisation="coding", method="replay", **PRIVATE)
    (path,) = (run.folder / "certificates").iterdir()
    return run, read_certificate(path.read_bytes()).value


def test_a_private_run_ends_and_holds(private: World) -> None:
    run = private.state.run("private")
    assert len(trained(run, 0)) == 2
    for number, record in enumerate(trained(run, 0), start=1):
        assert len(record.admitted) == 4
        for manifest in (admitted.signed.value for admitted in record.admitted):
            assert manifest.epsilon == spent(run, manifest.organisation, number)
            assert not {"loss", "seconds"} & manifest.metrics.keys()
    assert verify(run, private.ledger).failures == ()


def test_a_replay_says_that_nobody_else_can_train_it_again_and_what_was_spent(
    certified: tuple[RunFolder, ErasureCertificate, World],
) -> None:
    run, certificate, world = certified
    assert certificate.label == "exact-in-distribution"
    assert certificate.epsilon == claimed(signed.value for signed in run.records())
    # The erased spent two rounds, those who replayed four, whoever was exhausted what it says itself.
    assert certificate.epsilon[CODING] == spent(run, CODING, 2)
    assert max(certificate.epsilon.values()) == max(spent(run, o.address, 4) for o in run.genesis.organisations)
    signed = read_certificate(next((run.folder / "certificates").iterdir()).read_bytes())
    assert check(signed, run, world.ledger) == ()


def test_an_exhausted_organisation_abstains_and_the_others_go_on(
    certified: tuple[RunFolder, ErasureCertificate, World],
) -> None:
    run, _, _ = certified
    for record in trained(run, 1):
        (rejection,) = record.rejected
        assert (rejection.organisation, rejection.reason) == (FINANCIAL, "abstained")
        assert "privacy budget: expected at most 0 steps more" in rejection.detail
        assert len(record.admitted) == 2


def test_a_certificate_that_tells_less_than_was_spent_does_not_hold(
    certified: tuple[RunFolder, ErasureCertificate, World],
) -> None:
    run, certificate, world = certified
    lineage = Lineage.of(run.genesis, run.records())

    def failures(epsilon: dict[Address, float]) -> list[str]:
        changed = replace(certificate, epsilon=epsilon)
        parts = CertificateCheck(run, world.ledger, changed, certificate.attestation.value, lineage)
        return [failure.what for failure in parts.privacy()]

    honest = dict(certificate.epsilon)
    assert failures(honest) == []
    assert failures({}) == failures(honest | {CODING: 0.1}) == ["privacy loss"]


def test_an_erasure_that_the_budget_does_not_cover_is_refused_before_it_begins(world: World) -> None:
    settings = {"dp-epsilon": 3.0}
    run = world.run("spent", **settings)
    with pytest.raises(UsageError, match="expected at least 4 steps left for 2 rounds, got 0: use remove"):
        world.run("spent", mode="unlearn", organisation="coding", method="replay", **settings)
    assert not list(run.erasures())
    removed = world.run("spent", mode="unlearn", organisation="coding", method="remove", **settings)
    (path,) = (removed.folder / "certificates").iterdir()
    certificate = read_certificate(path.read_bytes()).value
    assert certificate.label == "interim"
    assert certificate.epsilon[CODING] == spent(run, CODING, 2)
