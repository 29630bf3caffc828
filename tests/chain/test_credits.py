"""Credit on the public ledger: a root of everybody's, and claims by proof."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.contract import BoundContract
from chain.credits import UNIT, Credits, CreditTree, credit_leaf
from chain.ledger import EthereumLedger
from core import merkle
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import LedgerConflictError
from core.keys import derive
from tests.behaviours.ledger import MEMBERS, some_digest
from tests.behaviours.runs import COORDINATOR

RUN = Digest("0x" + "ab" * 32)
AMOUNTS = st.lists(st.integers(0, 2**200), min_size=1, max_size=9)


def tree_of(amounts: list[int], run: Digest = RUN) -> CreditTree:
    return CreditTree(run, {derive(2, str(index)).address: amount for index, amount in enumerate(amounts)})


@given(AMOUNTS)
def test_every_organisation_proves_its_credit_and_no_other(amounts: list[int]) -> None:
    tree = tree_of(amounts)
    for organisation, amount in tree.cumulative.items():
        assert tree.holds(organisation, tree.root)
        assert not tree_of([x + 1 for x in amounts]).holds(organisation, tree.root)
        leaf = credit_leaf(RUN, organisation, amount)
        assert merkle.process(leaf, tree.proof(organisation)).hex() == tree.root[2:]


def test_the_root_does_not_depend_on_the_order_of_the_amounts() -> None:
    tree = tree_of([1, 2, 3])
    assert CreditTree(RUN, dict(reversed(tree.cumulative.items()))).root == tree.root
    assert tree_of([1, 2, 3], run=ZERO_DIGEST).root != tree.root


def test_whole_credits_become_units() -> None:
    address = Address("0x" + "11" * 20)
    assert CreditTree.of(RUN, {address: 1.5}).cumulative == {address: 3 * UNIT // 2}


def test_an_outsider_has_no_proof() -> None:
    with pytest.raises(KeyError):
        CreditTree(RUN, {}).proof(COORDINATOR.address)


@pytest.fixture
def run(public: BoundContract) -> Digest:
    run = some_digest()
    EthereumLedger(public).open_run(run, MEMBERS)
    return run


@pytest.mark.chain
def test_credit_is_claimed_by_proof_as_it_grows(public: BoundContract, run: Digest) -> None:
    ledger, organisation = Credits(public), min(MEMBERS)
    assert ledger.newest(run) == (0, ZERO_DIGEST)
    assert ledger.claimed(run, organisation) == 0
    for epoch, grown in enumerate((3, 5), start=1):
        tree = CreditTree(run, dict.fromkeys(MEMBERS, grown * UNIT))
        ledger.post(epoch, tree)
        ledger.post(epoch, tree)
        assert ledger.newest(run) == (epoch, tree.root)
        ledger.claim(tree, organisation)
        ledger.claim(tree, organisation)
        assert ledger.claimed(run, organisation) == grown * UNIT


@pytest.mark.chain
def test_credit_that_was_not_posted_cannot_be_claimed(public: BoundContract, run: Digest) -> None:
    ledger, organisation = Credits(public), min(MEMBERS)
    ledger.post(1, CreditTree(run, dict.fromkeys(MEMBERS, 1)))
    other = CreditTree(run, dict.fromkeys(MEMBERS, 2))
    with pytest.raises(LedgerConflictError, match="ProofInvalid"):
        ledger.claim(other, organisation)
    with pytest.raises(LedgerConflictError, match=f"epoch 1: .*{ledger.newest(run)[1]}, got {other.root}"):
        ledger.post(1, other)
    with pytest.raises(LedgerConflictError, match=r"EpochNotNext\(got=3, expected=2\)"):
        ledger.post(3, other)
