"""Erasing records: the shards that saw them are trained again as if they had never been there, and nothing else is."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chain.audit.run import verify
from client_app.erased_records import ErasedRecords
from core import keys, seeds
from core.canonical import Digest
from core.erasures import hidden
from core.errors import DestroyedError, UsageError
from core.storage.artifacts import Artifacts
from core.storage.run_folder import RunFolder
from llm.files import read_records
from llm.records import Record
from llm.served import serving
from provenance.evidence import Evidence
from provenance.served import subject, trace
from server_app.rounds import Rounds
from tests.server_app.worlds import World, make_world
from tests.unlearning.conftest import NAMES
from tests.unlearning.test_crash import KilledError, killed
from tests.unlearning.test_erasing import address, certificates, holds
from unlearning.certificate import LIMITS_OF_RECORDS, ErasureCertificate, read_certificate
from unlearning.check import check

SLICES = 2
SLICED = {"lane-size": 1, "shards": SLICES, "rounds": 2, "local-steps": 6}
"""Steps enough for every record of a shard to be learnt in every round."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Iterator[World]:
    """A run in shards, on data with a dev.jsonl, so that a record less to train on is the only change."""
    folder = tmp_path_factory.mktemp("records")
    for name in NAMES[:2]:
        text = (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "data" / name).mkdir(parents=True)
        (folder / "data" / name / "train.jsonl").write_text("".join(text[:-2]), encoding="utf-8")
        (folder / "data" / name / "dev.jsonl").write_text("".join(text[-2:]), encoding="utf-8")
    shutil.copy(data / "validation.jsonl", folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(folder / "state", base, folder / "data", patch)
        world.run("sharded", **SLICED)
        yield world


@pytest.fixture
def world(finished: World, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of its own for every test."""
    world = make_world(tmp_path / "state", base, Path(finished.settings["data"]), monkeypatch)
    world.take_over(finished)
    return world


def of_slice(part: int) -> Callable[[Record], bool]:
    return lambda record: seeds.shard_of(record.digest, SLICES) == part


def picked(world: World, wanted: Callable[[Record], bool], most: int = 100) -> list[str]:
    """Lines of coding's data, at most so many."""
    path = Path(world.settings["data"]) / "coding" / "train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line, record in zip(lines, read_records(path), strict=True) if wanted(record)][:most]


def written(tmp_path: Path, lines: list[str], name: str = "erased.jsonl") -> str:
    path = tmp_path / name
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def forget(world: World, run: str, file: str, method: str = "shards", **changes: object) -> list[ErasureCertificate]:
    known = len(list(certificates(world.state.run(run))))
    done = world.run(run, mode="unlearn", organisation="coding", method=method, records=file, **changes)
    return certificates(done)[known:]


def without(world: World, tmp_path: Path, lines: list[str], **changes: object) -> RunFolder:
    """A run whose data never had these lines."""
    folder = tmp_path / "without"
    for path in Path(world.settings["data"]).rglob("*.jsonl"):
        kept = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (copy := folder / path.relative_to(world.settings["data"])).parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("".join(line for line in kept if line not in lines), encoding="utf-8")
    return world.run("without", data=str(folder), **changes)


def heads(run: RunFolder) -> list[Digest]:
    return [run.lineage(lane)[-1].value.aggregate for lane in range(len(run.genesis.lanes))]


def checked(world: World, run: RunFolder) -> list[str]:
    """What does not hold of any certificate of a run."""
    paths = sorted((run.folder / "certificates").iterdir())
    signed = [read_certificate(path.read_bytes()) for path in paths]
    return [str(failure) for one in signed for failure in check(one, run, world.ledger)]


def test_the_slice_that_saw_the_records_is_as_if_it_never_had(world: World, tmp_path: Path) -> None:
    lines = picked(world, of_slice(1), most=2)
    assert len(lines) == 2
    run = world.state.run("sharded")
    first, second = run.genesis.lanes_of(address("coding"))
    before, line = heads(run), [signed.value for signed in run.lineage(second)]
    (certificate,) = forget(world, "sharded", written(tmp_path, lines), **SLICED)
    assert certificate.label == "exact"
    assert certificate.aggregate == serving(run).state.digest
    after = heads(run)
    assert after == heads(without(world, tmp_path, lines, **SLICED))
    assert [lane for lane in range(len(before)) if after[lane] != before[lane]] == [second]
    assert [len(run.generations(lane)) for lane in (first, second)] == [0, 1]
    gone = {state for record in line for state in record.states} - {
        s for r in run.lineage(second) for s in r.value.states
    }
    assert line[-1].aggregate in gone
    for state in gone:
        with pytest.raises(DestroyedError):
            run.artifacts.open(state)
    assert holds(world, run) == (2 * len(before), 2)
    assert checked(world, run) == []
    assert not [r for signed in run.records() for r in signed.value.rejected]
    assert not world.events("sharded", "objected")
    assert address("coding") in subject(run).organisations


def test_the_certificate_says_how_many_records_and_hides_which(world: World, tmp_path: Path) -> None:
    lines = picked(world, of_slice(0), most=1)
    run = world.state.run("sharded")
    (certificate,) = forget(world, "sharded", written(tmp_path, lines), **SLICED)
    request = certificate.attestation.value.request.value
    (record,) = read_records(tmp_path / "erased.jsonl")
    assert (request.count, request.method, request.whole) == (1, "shards", False)
    assert request.records == hidden(keys.derive(7, "coding").salt_for(request.nonce), [record.digest])
    assert request.records != hidden(keys.derive(7, "medical").salt_for(request.nonce), [record.digest])
    assert set(LIMITS_OF_RECORDS) <= set(certificate.limits)
    everything = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    assert record.digest.encode() not in everything
    assert record.answer.encode() not in everything


def test_records_of_several_slices_have_a_certificate_for_each(world: World, tmp_path: Path) -> None:
    lines = [*picked(world, of_slice(0), most=1), *picked(world, of_slice(1), most=1)]
    run = world.state.run("sharded")
    before = heads(run)
    found = forget(world, "sharded", written(tmp_path, lines), **SLICED)
    lanes = run.genesis.lanes_of(address("coding"))
    assert [c.attestation.value.lane for c in found] == list(lanes)
    assert len({c.attestation.value.request.value for c in found}) == 1
    assert {c.label for c in found} == {"exact"}
    after = heads(run)
    assert after == heads(without(world, tmp_path, lines, **SLICED))
    assert {lane for lane in range(len(before)) if after[lane] != before[lane]} == set(lanes)
    assert holds(world, run) == (2 * len(before), 4)
    assert checked(world, run) == []


def test_a_slice_may_lose_all_its_records(world: World, tmp_path: Path) -> None:
    lines = picked(world, of_slice(0))
    run = world.state.run("sharded")
    (certificate,) = forget(world, "sharded", written(tmp_path, lines), **SLICED)
    state = run.artifacts.open(certificate.after.aggregate)
    assert not any(array.any() for array in state.arrays.values())
    assert heads(run) == heads(without(world, tmp_path, lines, **SLICED))
    assert holds(world, run)[1] == 2
    assert checked(world, run) == []


def test_more_records_may_follow_and_then_the_organisation(world: World, tmp_path: Path) -> None:
    one, other, *_ = picked(world, of_slice(1))
    run = world.state.run("sharded")
    forget(world, "sharded", written(tmp_path, [one]), **SLICED)
    (certificate,) = forget(world, "sharded", written(tmp_path, [other], "more.jsonl"), **SLICED)
    assert certificate.after.generation == 2
    assert heads(run) == heads(without(world, tmp_path, [one, other], **SLICED))
    assert checked(world, run) == []
    world.run("sharded", mode="unlearn", organisation="coding", method="remove", **SLICED)
    found = certificates(run)[2:]
    assert [c.attestation.value.lane for c in found] == list(run.genesis.lanes_of(address("coding")))
    assert {(c.label, c.after.round) for c in found} == {("exact", 0)}
    assert address("coding") not in subject(run).organisations
    assert verify(run, world.ledger, strict=True).failures == ()
    assert checked(world, run) == []
    with pytest.raises(UsageError, match="coding is already erased"):
        forget(world, "sharded", written(tmp_path, [other], "more.jsonl"), basis="another", **SLICED)


def test_the_organisation_may_clean_its_files_afterwards(world: World, tmp_path: Path) -> None:
    one, other, *_ = picked(world, of_slice(1))
    run = world.state.run("sharded")
    forget(world, "sharded", written(tmp_path, [one]), **SLICED)
    reference = without(world, tmp_path, [one], **SLICED)
    world.settings["data"] = str(tmp_path / "without")
    forget(world, "sharded", written(tmp_path, [other], "more.jsonl"), **SLICED)
    second = run.genesis.lanes_of(address("coding"))[1]
    assert heads(run)[:second] == heads(reference)[:second]
    assert len(run.generations(second)) == 2
    assert not world.events("sharded", "objected")
    assert checked(world, run) == []


def test_who_learns_with_others_erases_records_by_a_replay(world: World, tmp_path: Path) -> None:
    lines = picked(world, lambda _: True, most=3)
    run = world.run("together")
    (certificate,) = forget(world, "together", written(tmp_path, lines), method="replay")
    assert certificate.label == "exact"
    assert run.members(0) == run.genesis.lanes[0]

    def updates(of: RunFolder) -> set[Digest]:  # of the first round, which weights do not touch
        return {a.signed.value.update for a in of.lineage(0)[0].value.admitted}

    assert updates(run) == updates(without(world, tmp_path, lines))
    assert holds(world, run) == (2, 2)
    assert checked(world, run) == []


def _unknown(world: World) -> list[str]:
    return [*picked(world, of_slice(0), most=1), json.dumps({"question": "who?", "answer": "nobody"}) + "\n"]


def _held_out(world: World) -> list[str]:
    return Path(f"{world.settings['data']}/coding/dev.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (_unknown, "1 of 2 records are not in the training data of coding"),
        (
            _held_out,
            "2 of 2 records are not in the training data of coding: records that it holds out are never learnt",
        ),
    ],
)
def test_records_that_are_not_in_the_data_change_nothing(
    world: World, tmp_path: Path, lines: Callable[[World], list[str]], error: str
) -> None:
    run = world.state.run("sharded")
    before = sorted(path for path in world.state.folder.rglob("*") if "events" not in path.parts)
    with pytest.raises(UsageError, match=error):
        forget(world, "sharded", written(tmp_path, lines(world)), **SLICED)
    assert sorted(path for path in world.state.folder.rglob("*") if "events" not in path.parts) == before
    assert not run.erasures()


def test_records_are_erased_once(world: World, tmp_path: Path) -> None:
    one, other, *_ = picked(world, of_slice(1))
    forget(world, "sharded", written(tmp_path, [one]), **SLICED)
    assert forget(world, "sharded", written(tmp_path, [one]), **SLICED) == [], "the same request has its certificate"
    with pytest.raises(UsageError, match="1 of 1 records of coding are already erased"):
        forget(world, "sharded", written(tmp_path, [one]), basis="another", **SLICED)
    with pytest.raises(UsageError, match="1 of 2 records of coding are already erased"):
        forget(world, "sharded", written(tmp_path, [one, other]), **SLICED)


STEPS: dict[str, tuple[type, str, int, bool]] = {
    "before the first attestation": (RunFolder, "attest", 1, False),
    "between the attestations": (RunFolder, "attest", 1, True),
    "after the last attestation": (RunFolder, "attest", 2, True),
    "between the generations": (RunFolder, "open_generation", 1, True),
    "before the organisation has noted it": (ErasedRecords, "note", 1, False),
    "after it has": (ErasedRecords, "note", 1, True),
    "while it trains": (Rounds, "admit", 3, True),
    "while states are destroyed": (Artifacts, "destroy", 5, True),
    "before the first certificate": (RunFolder, "certify", 1, False),
    "between the certificates": (RunFolder, "certify", 1, True),
    "after the last certificate": (RunFolder, "certify", 2, True),
}
"""A method, the call of it that is the last, and whether that one still happens."""


@pytest.fixture(scope="module")
def expected(finished: World, tmp_path_factory: pytest.TempPathFactory, base: Path) -> list[Digest]:
    """Where the lanes stand without a record of either shard."""
    folder = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(folder / "state", base, Path(finished.settings["data"]), patch)
        return heads(without(world, folder, one_of_each(world), **SLICED))


def one_of_each(world: World) -> list[str]:
    return [line for part in range(SLICES) for line in picked(world, of_slice(part), most=1)]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_goes_on(world: World, expected: list[Digest], tmp_path: Path, step: str) -> None:
    owner, method, last, done = STEPS[step]
    file = written(tmp_path, one_of_each(world))
    with pytest.MonkeyPatch.context() as patch:
        killed(patch, owner, method, last, done=done)
        with pytest.raises(KilledError):
            forget(world, "sharded", file, **SLICED)
    run = world.state.run("sharded")
    assert verify(run, world.ledger).failures == ()
    forget(world, "sharded", file, **SLICED)
    found = certificates(run)
    assert heads(run) == expected
    assert {c.label for c in found} == {"exact"}
    assert {c.attestation.value.lane for c in found} == set(run.genesis.lanes_of(address("coding")))
    assert len({c.attestation.value.request.value for c in found}) == 1
    assert holds(world, run)[1] == 4


def test_another_erasure_waits_for_one_that_has_begun(world: World, tmp_path: Path) -> None:
    one, other, *_ = picked(world, of_slice(1))
    with pytest.MonkeyPatch.context() as patch:
        killed(patch, RunFolder, "attest", 1, done=True)
        with pytest.raises(KilledError):
            forget(world, "sharded", written(tmp_path, [one]), **SLICED)
    waits = "the erasure of 1 records of coding by shards is not finished"
    with pytest.raises(UsageError, match=waits):
        forget(world, "sharded", written(tmp_path, [other], "other.jsonl"), **SLICED)
    with pytest.raises(UsageError, match=waits):
        world.run("sharded", mode="unlearn", organisation="coding", method="remove", **SLICED)


def test_an_organisation_in_slices_is_gone_from_all_of_them_or_goes_on(world: World) -> None:
    whole = {"mode": "unlearn", "organisation": "coding", "method": "remove", **SLICED}
    with pytest.MonkeyPatch.context() as patch:
        killed(patch, RunFolder, "certify", 1, done=True)
        with pytest.raises(KilledError):
            world.run("sharded", **whole)
    run = world.run("sharded", **whole)
    found = certificates(run)
    assert [(c.label, c.after.round) for c in found] == [("exact", 0)] * SLICES
    assert {c.attestation.value.lane for c in found} == set(run.genesis.lanes_of(address("coding")))
    assert checked(world, run) == []


def test_a_verdict_on_who_learns_in_slices_has_evidence_from_all_of_them(world: World) -> None:
    run = world.state.run("sharded")
    found = trace(run, "coding 1?", "cod 1", "gradient")
    scores = found.response.scores
    who = found.organisations[scores.index(max(scores))]  # also where the method abstains
    bundle = Evidence.of(run, replace(found, response=replace(found.response, verdict=who)))
    assert bundle.verified() == who
    assert {signed.value.lane for signed in bundle.records} == set(range(len(run.genesis.lanes)))
    assert {proof.signed.value.lane for proof in bundle.proofs} == set(run.genesis.lanes_of(who))
    assert len(bundle.proofs) == 2 * SLICES
