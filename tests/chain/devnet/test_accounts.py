"""What development chains share is fixed: other machines must find the same administrator and chains."""

from chain.devnet.accounts import ALLOWANCE, CHAIN_IDS, FUNDS, administrator


def test_the_administrator_is_the_same_on_every_machine_and_derived() -> None:
    assert administrator() == administrator()
    assert administrator().derived


def test_the_two_chains_have_ids_of_their_own() -> None:
    assert len(set(CHAIN_IDS.values())) == len(CHAIN_IDS) == 2
    assert set(CHAIN_IDS) == {"public", "private"}
    # Ids of public networks, of Hardhat and of Ganache, that a signed transaction must not be worth anything on.
    assert not set(CHAIN_IDS.values()) & {1, 10, 56, 100, 137, 1337, 8453, 31337, 42161, 11155111}


def test_funds_last_for_many_coordinators() -> None:
    assert FUNDS >= 10**6 * ALLOWANCE
