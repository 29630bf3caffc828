"""What a site does not allow is refused with one clear reason, and a policy that would allow by mistake is none."""

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from core.canonical import Digest
from core.config import RunConfig
from core.errors import ConfigError, NotNowError, PolicyError
from core.genesis import Privacy
from core.robust import Robust
from core.site_policy import SitePolicy, SiteTerms, minutes
from tests import federation as f

TERMS = SiteTerms.of(f.genesis())


def policy(folder: Path, text: str) -> SitePolicy:
    (folder / "policy.toml").write_text(text, encoding="utf-8")
    return SitePolicy.at(folder / "policy.toml")


def at(clock: str) -> time.struct_time:
    return time.strptime(clock, "%H:%M")


def test_without_a_policy_everything_is_allowed() -> None:
    free = SitePolicy.at(None)
    free.check_terms(TERMS)
    free.check_update(99_999, 10**6, 4096)
    free.check_data("medical", lambda: f.other("data"))
    free.check_hours()
    assert free.approve == "never"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            f'bases = ["{f.other("base")}", "smollm2"]',
            f"base: expected {f.other('base')} or smollm2, as this .* got tiny",
        ),
        ("most-rounds = 1", "most-rounds: expected at most 1, as this site's policy allows, got 2"),
        ("most-steps = 24", "most-steps: expected at most 24, as this site's policy allows, got 25"),
        ("most-rank = 1", "most-rank: expected at most 1, as this site's policy allows, got 2"),
        ("most-norm = 99.5", "most-norm: expected at most 99.5, as this site's policy allows, got 100"),
        ("most-epsilon = 8", "most-epsilon: expected at most 8, as this site's policy allows, got inf"),
        ('robust = ["clip"]', "robust: expected clip, as this site's policy allows, got none"),
    ],
)
def test_terms_beyond_a_policy_are_refused_and_the_reason_is_one(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        policy(tmp_path, text).check_terms(TERMS)


def test_terms_within_every_bound_are_allowed(tmp_path: Path) -> None:
    allowed = policy(
        tmp_path,
        f'bases = ["{TERMS.base}"]\nmost-rounds = 2\nmost-steps = 25\nmost-rank = 2\nmost-norm = 100\n'
        'most-epsilon = 3\nrobust = ["clip"]\n',
    )
    allowed.check_terms(replace(TERMS, epsilon=3.0, robust="clip"))
    policy(tmp_path, 'bases = ["tiny"]').check_terms(TERMS)
    with pytest.raises(PolicyError, match=r"most-epsilon: expected at most 3, .* got 3.5"):
        allowed.check_terms(replace(TERMS, epsilon=3.5, robust="clip"))


def test_terms_are_those_of_a_genesis_and_of_the_settings_that_would_found_one() -> None:
    genesis = f.genesis(privacy=Privacy(3.0, 1e-5, 1.0), robust=Robust("clip", 2.0))
    assert (SiteTerms.of(genesis).epsilon, SiteTerms.of(genesis).robust) == (3.0, "clip")
    assert SiteTerms.of(f.genesis()).epsilon == math.inf
    config = RunConfig(rounds=7, local_steps=9, rank=3, norm_bound=5.0, dp_epsilon=2.0, robust="clip", base="b")
    assert SiteTerms.planned(config, f.other("base")) == SiteTerms(f.other("base"), "b", 7, 9, 3, 5.0, 2.0, "clip")


def test_an_update_beyond_a_policy_is_refused_whatever_the_genesis_says(tmp_path: Path) -> None:
    strict = policy(tmp_path, "most-rounds = 3\nmost-steps = 10\nmost-rank = 2\n")
    strict.check_update(3, 10, 2)
    for update, name in (((4, 1, 1), "rounds"), ((1, 11, 1), "steps"), ((1, 1, 3), "rank")):
        with pytest.raises(PolicyError, match=f"most-{name}: expected at most"):
            strict.check_update(*update)


def test_a_data_set_is_allowed_by_its_name_or_by_its_digest(tmp_path: Path) -> None:
    def never() -> Digest:
        raise AssertionError("no digest is asked for")

    digest = f.other("data")
    policy(tmp_path, 'data-sets = ["medical"]').check_data("medical", never)
    policy(tmp_path, f'data-sets = ["{digest}"]').check_data("medical", lambda: digest)
    with pytest.raises(PolicyError, match=r"data-sets: expected one of those in its list, .* got financial as it is"):
        policy(tmp_path, 'data-sets = ["medical"]').check_data("financial", never)
    with pytest.raises(PolicyError, match="data-sets: expected"):
        policy(tmp_path, f'data-sets = ["{digest}"]').check_data("medical", lambda: f.other("one record more"))


def test_a_federation_is_joined_that_the_policy_names_and_no_other(tmp_path: Path) -> None:
    genesis = f.genesis()
    for named in (genesis.digest, genesis.run):
        policy(tmp_path, f'joins = ["{named}"]').check_joining(genesis)
    for text in ("", 'joins = ["another"]'):
        with pytest.raises(PolicyError, match=r"joins: expected (none|another), as this site's policy allows, got 0x"):
            policy(tmp_path, text).check_joining(genesis)


@pytest.mark.parametrize(
    ("hours", "within", "without"),
    [
        ('"09:00-17:00"', ("09:00", "16:59"), ("08:59", "17:00", "00:00")),
        ('"22:00-06:00"', ("22:00", "23:59", "00:00", "05:59"), ("06:00", "21:59")),
        ('"00:00-24:00"', ("00:00", "23:59"), ()),
        ('"01:00-02:00", "03:00-04:00"', ("01:30", "03:30"), ("02:30",)),
    ],
)
def test_hours_are_those_of_the_machine_s_clock(
    tmp_path: Path, hours: str, within: tuple[str, ...], without: tuple[str, ...]
) -> None:
    own = policy(tmp_path, f"hours = [{hours}]")
    for clock in within:
        own.check_hours(at(clock))
    for clock in without:
        with pytest.raises(NotNowError, match=f"hours: expected .* got {clock}"):
            own.check_hours(at(clock))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("most-rouds = 1", "expected settings among bases, .*, got 'most-rouds'"),
        ('most-rounds = "5"', "most-rounds: expected a whole number, got '5'"),
        ("most-rounds = true", "most-rounds: expected a whole number, got True"),
        ("most-rounds = 0", "most-rounds: expected 1 to 99999, got 0"),
        ("most-rank = 2.5", "most-rank: expected a whole number, got 2.5"),
        ("most-norm = nan", "most-norm: expected a number above 0, got nan"),
        ("most-epsilon = inf", "most-epsilon: expected a number above 0, got inf"),
        ("most-epsilon = -1", "most-epsilon: expected a number above 0, got -1"),
        ('bases = "smollm2"', "bases: expected a list of text, got 'smollm2'"),
        ("bases = []", "bases: expected at least one, or no line that begins with bases, got none"),
        ("data-sets = []", "data-sets: expected at least one"),
        ("robust = []", "robust: expected at least one"),
        ("hours = []", "hours: expected at least one"),
        ("bases = [1]", r"bases: expected a list of text, got \[1\]"),
        ('bases = ["0x12"]', "a digest is 0x and 64 lower-case hex digits, got '0x12'"),
        ('data-sets = ["0xAB"]', "a digest is 0x and 64 lower-case hex digits"),
        ('robust = ["krum"]', "robust: expected rules among clip, .*, got 'krum'"),
        ('robust = ["none"]', "robust: expected rules among clip, .*, got 'none'"),
        ('hours = ["9-17"]', "hours: expected \"HH:MM-HH:MM\", got '9-17'"),
        ('hours = ["24:00-06:00"]', 'hours: expected "HH:MM-HH:MM", got'),
        ('hours = ["06:00-24:30"]', "hours: expected an end up to 24:00"),
        ('hours = ["06:00-06:00"]', "hours: expected an end up to 24:00 that is not the beginning"),
        ('approve = "always"', "approve: expected never, first or each, got 'always'"),
        ("approve = true", "approve: expected text, got True"),
        ("approve", "expected TOML in UTF-8"),
    ],
)
def test_a_policy_that_would_be_read_as_something_else_is_refused(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        policy(tmp_path, text)


def test_a_policy_that_is_named_and_missing_allows_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a settings file, got No such file"):
        SitePolicy.at(tmp_path / "policy.toml")


def test_a_window_over_midnight_has_as_many_minutes_as_the_clock_counts() -> None:
    assert minutes("22:00-06:00") == (1320, 480)
    assert minutes("00:00-24:00") == (0, 1440)
