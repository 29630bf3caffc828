from chain.devnet.accounts import ALLOWANCE, CHAIN_IDS, FUNDS, administrator


def test_the_chains_have_ids_of_their_own() -> None:
    assert len(set(CHAIN_IDS.values())) == len(CHAIN_IDS) == 2


def test_the_administrator_is_the_same_for_everybody_and_marked_as_derived() -> None:
    assert administrator() == administrator()
    assert administrator().derived


def test_the_administrator_can_pay_a_billion_coordinators() -> None:
    assert FUNDS // ALLOWANCE >= 10**9
