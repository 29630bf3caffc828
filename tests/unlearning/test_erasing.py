"""Erasures from end to end: what is served afterwards, what is gone, and what can still be checked."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from agents.rewards import cumulative
from chain.audit.run import verify
from core import keys
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate, weights
from core.canonical import Address, Digest
from core.composition import COMPOSITIONS
from core.errors import DestroyedError, UsageError
from core.storage.run_folder import RunFolder
from llm.served import serving
from provenance.served import subject
from tests.server_app.worlds import World
from tests.unlearning.conftest import NAMES
from unlearning.certificate import ErasureCertificate, read_certificate


def address(name: str) -> Address:
    return keys.derive(7, name).address


def forget(world: World, run: str, name: str, method: str, **changes: Any) -> ErasureCertificate:
    settings = {"mode": "unlearn", "organisation": name, "method": method}
    done = world.run(run, **settings, **changes)
    return certificates(done)[-1]


def certificates(run: RunFolder) -> list[ErasureCertificate]:
    paths = sorted((run.folder / "certificates").glob("*.json"), key=lambda path: path.stat().st_mtime)
    return [read_certificate(path.read_bytes()).verified(run.genesis) for path in paths]


def without(world: World, tmp_path: Path, *gone: str, **changes: Any) -> Digest:
    """What a run in which these never took part serves."""
    folder = tmp_path / f"without-{'-'.join(gone)}"
    folder.mkdir(exist_ok=True)
    for name in (*(set(NAMES) - set(gone)), "validation"):
        shutil.copy(f"{world.settings['data']}/{name}.jsonl", folder / f"{name}.jsonl")
    run = world.run(f"without-{'-'.join(gone)}", data=str(folder), **changes)
    return serving(run).state.digest


def holds(world: World, run: RunFolder) -> tuple[int, int]:
    report = verify(run, world.ledger, strict=True)
    assert report.failures == ()
    return report.recomputed, report.attested


def test_a_replay_gives_what_a_run_without_the_organisation_gives(world: World, tmp_path: Path) -> None:
    run = world.run("together")
    certificate = forget(world, "together", "coding", "replay")
    assert certificate.label == "exact"
    assert certificate.aggregate == serving(run).state.digest == without(world, tmp_path, "coding")
    assert holds(world, run) == (2, 2)
    assert not world.events("together", "objected")
    assert not [r for signed in run.records() for r in signed.value.rejected]
    assert not certificate.outstanding
    assert {receipt.value.organisation for receipt in certificate.receipts} == {address(name) for name in NAMES}


def test_a_replay_goes_back_to_where_turns_would_have_been_others(world: World, tmp_path: Path) -> None:
    """Three of four are asked, two of the remaining three: from the first round on, in which the erased had no turn."""
    turns = {"participation": "round-robin", "fraction": 0.6}
    run = world.run("turns", **turns)
    [last] = {*run.genesis.lanes[0]} - {a.organisation for a in next(run.records()).value.admitted}
    name = run.genesis.names[last]
    certificate = forget(world, "turns", name, "replay", **turns)
    assert certificate.aggregate == without(world, tmp_path, name, **turns)
    assert holds(world, run) == (3, 1)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_a_lane_of_one_is_removed_exactly_and_at_once(world: World, tmp_path: Path, composition: str) -> None:
    alone = {"lane-size": 1, "composition": composition}
    run = world.run("alone", **alone)
    certificate = forget(world, "alone", "coding", "remove", **alone)
    assert certificate.label == "exact"
    assert certificate.aggregate == serving(run).state.digest == without(world, tmp_path, "coding", **alone)
    assert holds(world, run) == (6, 2)
    assert address("coding") not in subject(run).organisations


def test_a_removal_is_bit_equal_to_the_sum_without_the_organisation(world: World) -> None:
    run = world.run("together", rounds=3)
    fresh = serving(run)
    kept = [signed.value for signed in run.lineage(0)]
    expected = AdapterState({n: 0 * array for n, array in fresh.state.states[0].arrays.items()})
    from core.aggregation import RULES  # noqa: PLC0415

    for record in kept:
        others = [a for a in record.admitted if a.organisation != address("coding")]
        p = weights(
            {o.address: o.examples for o in run.genesis.organisations if o.address != address("coding")},
            run.genesis.server_rate,
        )
        updates = [
            WeightedUpdate(a.organisation, p[a.organisation], run.artifacts.open(a.signed.value.update)) for a in others
        ]
        expected = RULES["frozen-a"].aggregate(expected, updates).state
    certificate = forget(world, "together", "coding", "remove", rounds=3)
    assert certificate.label == "interim"
    assert certificate.aggregate == expected.digest == serving(run).state.digest
    assert holds(world, run) == (3, 3)
    assert address("coding") not in subject(run).organisations


def test_a_repair_sums_every_round_again_and_adds_short_ones(world: World) -> None:
    steps = {"local-steps": 16, "local-epochs": 0.0}
    run = world.run("together", **steps)
    certificate = forget(world, "together", "coding", "repair", **steps)
    assert certificate.label == "approximate"
    line = [signed.value for signed in run.lineage(0)]
    assert [(r.generation, r.reaggregated, len(r.admitted)) for r in line] == [(1, True, 3)] * 2 + [(1, False, 3)] * 4
    assert {a.signed.value.bid.steps for record in line[2:] for a in record.admitted} == {2}
    assert not [r for signed in run.records() for r in signed.value.rejected]
    assert not world.events("together", "objected")
    assert [event["round"] for event in world.events("together", "evaluated")] == [1, 2, 2, 6]
    assert holds(world, run) == (6, 2)


def test_after_a_repair_others_may_be_erased_by_any_method(world: World, tmp_path: Path) -> None:
    run = world.run("together")
    forget(world, "together", "coding", "repair")
    assert forget(world, "together", "medical", "repair").label == "approximate"
    assert [signed.value.round for signed in run.lineage(0)] == list(range(1, 11))
    assert [signed.value.reaggregated for signed in run.lineage(0)] == [True] * 6 + [False] * 4
    assert forget(world, "together", "financial", "replay").label == "exact"
    assert serving(run).state.digest == without(world, tmp_path, "coding", "medical", "financial")
    assert holds(world, run)[0] == 2


def test_a_repair_leaves_other_lanes_as_they_are(world: World) -> None:
    pairs = {"lane-size": 2}
    run = world.run("pairs", **pairs)
    (lane,) = run.genesis.lanes_of(address("coding"))
    forget(world, "pairs", "coding", "repair", **pairs)
    assert [len(run.lineage(index)) for index in (lane, 1 - lane)] == [6, 2]
    assert holds(world, run) == (8, 2)


def test_nobody_bids_or_is_paid_in_a_calibration(world: World) -> None:
    # Without costs everybody bids for round 2: no round hangs on the erased.
    agents = {"participation": "q-learning", "rounds": 3, "step-price": 0.0, "traffic-price": 0.0}
    run = world.run("bidding", **agents)
    certificate = forget(world, "bidding", "coding", "repair", **agents)
    line = [signed.value for signed in run.lineage(0)]
    assert [len(record.admitted) for record in line[3:]] == [3] * 6
    assert {event["round"] for event in world.events("bidding", "bids")} == {1, 2, 3}
    assert {event["round"] for event in world.events("bidding", "credited")} == {1, 2, 3}
    assert certificate.label == "approximate"
    assert set(cumulative(run)) <= set(run.genesis.names)


def test_a_stacked_adapter_cannot_be_repaired(world: World) -> None:
    world.run("stacked", aggregation="stack", rank=1)
    with pytest.raises(UsageError, match="a stacked adapter grows"):
        forget(world, "stacked", "coding", "repair", aggregation="stack", rank=1)


def test_agents_forget_what_rounds_paid_that_were_taken_back(world: World) -> None:
    """Tables of the rounds since coding came are gone from every organisation; those of the replay are there."""
    agents = {"participation": "q-learning", "rounds": 3}
    run = world.run("bidding", **agents)
    folder = world.state.agent(run.genesis.digest, address("medical")).parent
    before = {(path.parent.name, path.name) for path in folder.glob("*/*.json")}
    came = min(s.value.round for s in run.lineage(0) if address("coding") in {a.organisation for a in s.value.admitted})
    certificate = forget(world, "bidding", "coding", "replay", **agents)
    assert certificate.label == "exact"
    assert not certificate.outstanding
    after = {(path.parent.name, path.name) for path in folder.glob("*/*.json")}
    taken_back = {(who, name) for who, name in before if name >= f"G00000-R{came:05}.json"}
    assert taken_back
    assert not taken_back & after
    assert {name for _, name in after - before} >= {f"G00001-R{number:05}.json" for number in range(came, 4)}
    assert holds(world, run) == (3, 4 - came)


def test_what_reveals_the_erased_cannot_be_read_again(world: World) -> None:
    run = world.run("together")
    line = [signed.value for signed in run.lineage(0)]
    own = [a.signed.value.update for r in line for a in r.admitted if a.organisation == address("coding")]
    tainted = [a.signed.value.update for a in line[1].admitted]
    forget(world, "together", "coding", "replay")
    for name in {*own, *tainted, *(record.aggregate for record in line)}:
        with pytest.raises(DestroyedError):
            run.artifacts.open(name)
    assert not [path for path in (run.folder / "salts").iterdir() if "-G0000-" in path.name]


def test_five_organisations_may_be_erased_one_after_another(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "six"
    shutil.copytree(world.settings["data"], folder)
    for name in ("educational", "legal"):
        text = (folder / "medical.jsonl").read_text(encoding="utf-8").replace("medical", name).replace("med", name[:3])
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    data = {"data": str(folder)}
    run = world.run("six", **data)
    gone = ("coding", "legal", "medical", "educational", "financial")
    for name in gone:
        assert forget(world, "six", name, "replay", **data).label == "exact"
    assert serving(run).state.digest == without(world, tmp_path, *gone[:1], *gone[2:3], *gone[4:])
    assert holds(world, run) == (2, 10)
    with pytest.raises(UsageError, match="is the last organisation"):
        forget(world, "six", "mathematical", "remove", **data)


def test_other_lanes_are_untouched(world: World) -> None:
    pairs = {"lane-size": 2}
    run = world.run("pairs", **pairs)
    (lane,) = run.genesis.lanes_of(address("coding"))
    before = [signed.to_dict() for signed in run.lineage(1 - lane)]
    assert forget(world, "pairs", "coding", "replay", **pairs).label == "exact"
    assert [signed.to_dict() for signed in run.lineage(1 - lane)] == before
    assert len(run.lineage(lane)) == 2
    assert holds(world, run) == (4, 2)
