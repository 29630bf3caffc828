"""The accountant: noise and ε are the library's, follow from the genesis, and claims below them are refused."""

from dataclasses import replace

import pytest
from opacus.accountants import RDPAccountant

from core.errors import ConfigError
from core.genesis import Genesis, Privacy
from core.privacy import PrivacyClaims, PrivacyPlan
from core.update import Bid
from tests import federation as f

MEDICAL = f.address("medical")


def private(epsilon: float = 3.0, reserve: int = 0, **changes: float) -> Genesis:
    plain = f.genesis(privacy=Privacy(epsilon, 1e-5, 1.0, reserve))
    return replace(plain, training=replace(plain.training, **changes))


def plan(genesis: Genesis) -> PrivacyPlan:
    found = PrivacyPlan.of(genesis, MEDICAL)
    assert found
    return found


def test_the_plan_follows_from_the_genesis_and_the_registered_count_alone() -> None:
    found = plan(private())
    assert found.rate == 8 / f.EXAMPLES["medical"]
    assert (found.steps, found.most) == (25, 50)
    assert plan(private(reserve=3)).most == 125
    assert plan(private(accumulation=4)).rate == 32 / f.EXAMPLES["medical"]
    assert plan(private(batch_size=1000)).rate == 1.0
    # An epoch of draws at rate q are 1 / q steps, where the federation allows as many.
    assert plan(private(local_epochs=1.0, local_steps=1000)).steps == 13
    assert plan(private(local_epochs=1.0, local_steps=10)).steps == 10
    assert PrivacyPlan.of(f.genesis(), MEDICAL) is None


def test_shards_draw_as_many_records_as_a_whole_data_set() -> None:
    genesis = private()
    sharded = replace(genesis, lanes=tuple((m.address,) for m in genesis.organisations for _ in range(2)))
    assert plan(sharded).rate == 2 * plan(genesis).rate


def test_a_claim_stands_for_the_steps_that_spend_so_much() -> None:
    found = plan(private())
    for steps in (0, 1, 7, 25, 50):
        # Another machine's accountant may find two percent more or less: it may stand for two steps fewer.
        assert steps - 2 <= found.steps_of(found.spent(steps)) <= steps
    assert found.steps_of(99.0) == found.most


def test_a_step_is_divided_by_what_the_registered_count_expects() -> None:
    assert plan(private()).expected == 8.0
    assert plan(private(batch_size=1000)).expected == 100.0
    assert plan(private(batch_size=1, accumulation=1)).expected == 1.0


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
def test_noise_and_epsilon_are_the_librarys(epsilon: float) -> None:
    found = plan(private(epsilon))
    accountant = RDPAccountant()
    for _ in range(found.most):
        accountant.step(noise_multiplier=found.noise, sample_rate=found.rate)
    reference = accountant.get_epsilon(1e-5, alphas=list(range(2, 256)))
    assert found.spent(found.most) == pytest.approx(reference, rel=1e-6)
    # All of the budget is for the noise that is needed, and none of it is exceeded.
    assert 0.99 * epsilon <= found.spent(found.most) <= epsilon
    spent = [found.spent(steps) for steps in range(0, found.most + 1, 5)]
    assert spent[0] == 0
    assert spent == sorted(set(spent))


def test_the_accountant_knows_a_published_case() -> None:
    """Abadi et al., 2016, section 3.1: q = 0.01, σ = 4, δ = 1e-5, 10,000 steps spend ε ≈ 1.26."""
    genesis = private()
    found = PrivacyPlan(genesis.privacy or Privacy(1, 1e-5, 1), 0.01, 1.0, 1, 1)
    object.__setattr__(found, "noise", 4.0)
    # Their moments accountant gives 1.26; Rényi divergences with the later conversion are a little tighter.
    assert 0.8 < found.spent(10_000) <= 1.26


def test_a_budget_that_no_noise_reaches_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="expected one that some noise reaches"):
        _ = plan(private(1e-6)).noise


def test_a_claim_is_at_least_what_was_spent_and_at_most_the_budget() -> None:
    genesis = private()
    found, claims = plan(genesis), PrivacyClaims(genesis)
    first = f.manifest(genesis, epsilon=found.spent(25))
    assert claims.expected(first) is None
    for wrong in (0.0, 0.9 * first.epsilon, 3.2):
        assert claims.expected(replace(first, epsilon=wrong)), wrong
    claims.note(first)
    # A second round has spent more than one, whatever the first has claimed.
    second = replace(first, round=2)
    assert claims.expected(second)
    assert claims.expected(replace(second, epsilon=found.spent(50))) is None
    # Whoever bids less spends less, and another lane or organisation has an account of its own.
    assert claims.expected(replace(second, bid=Bid(5, 2), epsilon=found.spent(30))) is None
    assert claims.expected(replace(first, lane=1)) is None


def test_a_claim_never_falls() -> None:
    genesis = private()
    claims, high = PrivacyClaims(genesis), f.manifest(genesis, bid=Bid(1, 2), epsilon=2.5)
    claims.note(high)
    assert claims.expected(replace(high, round=2, epsilon=2.4))
    assert claims.expected(replace(high, round=2, epsilon=2.5)) is None


def test_without_a_budget_nothing_is_claimed() -> None:
    claims = PrivacyClaims(f.genesis())
    assert claims.expected(f.manifest(f.genesis())) is None
    assert claims.expected(f.manifest(f.genesis(), epsilon=1.0)) == "0"
