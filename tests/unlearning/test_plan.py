"""The plan of an erasure, and the label that it leads to."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from core.canonical import digest
from core.errors import UsageError
from core.genesis import Privacy
from core.privacy import PrivacyPlan
from core.update import UpdateManifest
from tests import federation as f
from tests.unlearning.histories import EVERYONE, LAST, LATE, NAMES, History, Sharded, names, together
from unlearning.lineage import Label
from unlearning.plan import plans


@pytest.mark.parametrize(
    ("rounds", "method", "start", "carried", "last", "label"),
    [
        (EVERYONE, "remove", 0, 4, 4, Label.INTERIM),
        (EVERYONE, "repair", 0, 4, 12, Label.APPROXIMATE),
        (EVERYONE, "replay", 0, 0, 4, Label.EXACT),
        (LATE, "remove", 2, 4, 4, Label.INTERIM),
        (LATE, "repair", 2, 4, 12, Label.APPROXIMATE),
        (LATE, "replay", 2, 2, 4, Label.EXACT),
        (LAST, "remove", 3, 4, 4, Label.EXACT),
        (LAST, "repair", 3, 4, 12, Label.EXACT),  # the others' updates of the last round: trained on a clean one
        (LAST, "replay", 3, 3, 4, Label.EXACT),
    ],
)
def test_the_label_follows_from_the_lineage_alone(
    rounds: Sequence[Sequence[str]], method: str, start: int, carried: int, last: int, label: Label
) -> None:
    made = together(*rounds).plan("coding", method)
    assert (made.start, made.reaggregated, made.rounds, made.expected) == (start, carried, last, label)
    assert [record.round for record in made.records] == list(range(start + 1, carried + 1))


@pytest.mark.parametrize(
    ("method", "reserve", "label"),
    [
        ("remove", 0, Label.INTERIM),
        ("replay", 4, Label.EXACT_IN_DISTRIBUTION),  # nobody else can draw the noise of the new rounds
        ("repair", 1, Label.APPROXIMATE),  # a calibration is a quarter of the federation's rounds
    ],
)
def test_a_privacy_budget_with_a_reserve_covers_what_is_trained_again(method: str, reserve: int, label: Label) -> None:
    assert together(*EVERYONE, privacy=Privacy(3.0, 1e-5, 1.0, reserve)).plan("coding", method).expected is label


@pytest.mark.parametrize(("method", "reserve", "needed"), [("replay", 0, 100), ("replay", 3, 100), ("repair", 0, 24)])
def test_training_that_a_privacy_budget_does_not_cover_is_refused_before_anything_is_erased(
    method: str, reserve: int, needed: int
) -> None:
    history = together(*EVERYONE, privacy=Privacy(3.0, 1e-5, 1.0, reserve))
    with pytest.raises(UsageError, match=f"expected at least {needed} steps .*got {25 * reserve}: use remove"):
        history.plan("coding", method)


class Read:
    """A manifest that counts how often it is asked whose it is."""

    def __init__(self, manifest: UpdateManifest) -> None:
        self.manifest, self.asked = manifest, 0

    def __getattr__(self, name: str) -> Any:
        self.asked += name == "organisation"
        return getattr(self.manifest, name)


def test_a_manifest_is_read_once_for_all_budgets() -> None:
    lanes = together(*EVERYONE, privacy=Privacy(3.0, 1e-5, 1.0, 4)).lanes()
    read: dict[Any, Any] = {name: Read(manifest) for name, manifest in lanes.lineage.manifests.items()}
    counted = replace(lanes, lineage=replace(lanes.lineage, manifests=read))
    counted.check_budget(0, counted.members[0], range(0))
    assert {manifest.asked for manifest in read.values()} == {1}


def test_what_was_sent_and_not_admitted_has_spent_a_privacy_budget_as_well() -> None:
    """The record has updates of four rounds; by its ε an organisation has trained for a fifth that came to nothing."""
    history = History(rounds=4, privacy=Privacy(3.0, 1e-5, 1.0, 4))
    for _ in range(3):
        history.train(*NAMES)
    (budget,) = {PrivacyPlan.of(history.genesis, f.address("medical"))}
    assert budget
    history.train(*NAMES, epsilon=budget.spent(5 * 25))
    with pytest.raises(UsageError, match=r"privacy budget of \w+: expected at least 100 steps .* got \d\d:"):
        history.plan("coding", "replay")


def test_a_federation_of_two_that_asks_one_at_a_time_is_told_what_erases_from_it() -> None:
    history = together(["coding"], ["medical"])
    with pytest.raises(UsageError, match="use replay, or found with a larger fraction or participation all"):
        history.plan("coding", "remove")


def test_states_that_reveal_the_erased_are_destroyed_and_none_that_is_needed() -> None:
    history = together(*LATE)
    replay, remove = (history.plan("coding", method) for method in ("replay", "remove"))
    aggregates = {signed.value.aggregate for signed in history.records[2:]}
    own = {digest("adapter", f"coding 0 {n}".encode()) for n in (3, 4)}
    tainted = {digest("adapter", f"{name} 0 4".encode()) for name in NAMES[1:]}
    assert replay.to_destroy == aggregates | own | tainted
    assert remove.to_destroy == aggregates | own
    assert (
        [record.round for record in replay.salts_to_destroy]
        == [3, 4]
        == [record.round for record in remove.salts_to_destroy]
    )


def test_a_lane_of_one_goes_back_to_its_beginning_and_is_exact_by_any_method() -> None:
    history = History(lanes=4)
    for _ in range(4):
        for lane, (address,) in enumerate(history.genesis.lanes):
            history.train(next(n for n in NAMES if f.address(n) == address), lane=lane)
    for method in ("remove", "repair", "replay"):
        made = history.plan("coding", method)
        assert (made.parent, made.reaggregated, made.rounds, made.records, made.expected) == (
            None,
            0,
            0,
            (),
            Label.EXACT,
        )
        assert len(made.to_destroy) == 8


def test_after_a_removal_a_replay_goes_back_behind_everyone_erased() -> None:
    history = together(NAMES[1:], NAMES[:3], NAMES, NAMES)  # coding joins in round 2, medical learns from round 1
    first = history.plan("coding", "remove")
    history.reaggregate(first)
    made = history.plan("financial", "replay", coding=Label.INTERIM)
    assert (made.start, made.expected, names(made.erased)) == (0, Label.EXACT, {"coding", "financial"})


def test_an_interim_erasure_may_be_made_exact_and_an_exact_one_not_again() -> None:
    history = together(*EVERYONE)
    history.reaggregate(history.plan("coding", "remove"))
    assert history.plan("coding", "replay", coding=Label.INTERIM).expected is Label.EXACT
    with pytest.raises(UsageError, match="coding is already erased"):
        history.plan("coding", "replay", coding=Label.EXACT)


@pytest.mark.parametrize(
    ("name", "method", "error"),
    [
        ("coding", "forgive", "expected one of remove, repair, replay, shards, got 'forgive'"),
        ("nobody", "remove", "is not a member of run example"),
    ],
)
def test_bad_input(name: str, method: str, error: str) -> None:
    history = together(*EVERYONE)
    with pytest.raises(UsageError, match=error):
        plans(history.lanes(), f.key(name).address, method)


def test_a_run_with_rounds_to_go_is_refused() -> None:
    history = History(rounds=5)
    history.train(*NAMES)
    with pytest.raises(UsageError, match="expected 5 rounds, got 1: resume it first"):
        history.plan("coding", "remove")


@pytest.mark.parametrize(
    ("rounds", "quorum", "error"),
    [
        (EVERYONE, 4, "lane 0: expected a quorum of 4 organisations without the erased, got 3"),
        ((NAMES, NAMES[:3], NAMES), 3, "round 2: expected a quorum of 3 without the erased, got 2: use replay"),
    ],
)
def test_too_few_for_the_quorum_are_refused(rounds: Sequence[Sequence[str]], quorum: int, error: str) -> None:
    history = together(*rounds)
    genesis = replace(history.genesis, participation=replace(history.genesis.participation, quorum=quorum))
    with pytest.raises(UsageError, match=error):
        plans(replace(history.lanes(), genesis=genesis), f.address("coding"), "remove")


def test_the_last_organisation_is_refused() -> None:
    history = together(*EVERYONE)
    others = dict.fromkeys(NAMES[1:], Label.EXACT)
    history.reaggregate(history.plan("medical", "remove", **dict.fromkeys(NAMES[1:3], Label.EXACT)))
    with pytest.raises(UsageError, match="is the last organisation"):
        history.plan("coding", "remove", **others)


def test_records_are_erased_from_the_lanes_of_their_shards_only() -> None:
    history = Sharded()
    first, second = history.of("coding")
    assert second == first + 1
    (made,) = plans(history.lanes(), f.address("coding"), "shards", {1})
    assert (made.lane, made.parent, made.reaggregated, made.rounds, made.erased) == (second, None, 0, 2, frozenset())
    assert made.expected is Label.EXACT
    own = [signed.value for signed in history.lines[second]]
    assert [record.digest for record in made.salts_to_destroy] == [record.digest for record in own]
    assert [plan.lane for plan in plans(history.lanes(), f.address("coding"), "shards", {0, 1})] == [first, second]


def test_a_state_that_another_shard_has_too_is_not_destroyed() -> None:
    history = Sharded()
    (made,) = plans(history.lanes(), f.address("coding"), "shards", {1})
    update = history.lines[made.lane][0].value.admitted[0].signed.value.update
    twin = history.lines[history.of("coding")[0]][0].value.admitted[0].signed.value.update
    assert update == twin  # named by its round alone here, as the zero of shards without records is
    assert update not in made.to_destroy


def test_a_whole_organisation_is_erased_from_all_its_lanes() -> None:
    history = Sharded()
    made = plans(history.lanes(), f.address("coding"), "remove")
    assert [(plan.lane, plan.rounds, plan.expected) for plan in made] == [
        (lane, 0, Label.EXACT) for lane in history.of("coding")
    ]
    assert all(plan.erased == {f.address("coding")} for plan in made)


def test_records_of_who_learns_with_others_are_erased_by_a_replay_behind_its_first_round() -> None:
    history = together(*LATE)
    (made,) = plans(history.lanes(), f.address("coding"), "replay", {0})
    assert (made.start, made.reaggregated, made.rounds, made.erased) == (2, 2, 4, frozenset())
    assert made.expected is Label.EXACT
    assert made.to_destroy == history.plan("coding", "replay").to_destroy


@pytest.mark.parametrize(
    ("method", "shards", "error"),
    [
        ("shards", None, "method shards erases records"),
        ("remove", {0}, "expected replay or shards to erase records, got remove"),
        ("repair", {0}, "expected replay or shards to erase records, got repair"),
        ("shards", {0}, "several learn together here: use replay"),
    ],
)
def test_a_method_that_is_not_for_this_is_refused(method: str, shards: set[int] | None, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        plans(together(*EVERYONE).lanes(), f.address("coding"), method, shards)


def test_records_of_who_is_erased_are_erased_already() -> None:
    lanes = together(*EVERYONE).lanes({f.address("coding"): Label.INTERIM})
    with pytest.raises(UsageError, match="coding is already erased"):
        plans(lanes, f.address("coding"), "replay", {0})
