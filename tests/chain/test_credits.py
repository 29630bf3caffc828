"""Credits on the chain: roots by epoch, and claims by proofs that the contract accepts."""

from collections.abc import Iterator

import pytest

from chain.contract import BoundContract
from chain.credits import Credits
from chain.ledger import open_run
from core.canonical import ZERO_DIGEST, Address, Digest
from core.credit import CreditTree
from core.errors import LedgerConflictError
from core.keys import derive
from tests.behaviours.ledger import some_digest
from tests.chain.chains import bound, open_node

RUN = Digest("0x" + "ab" * 32)
LOW, MIDDLE, HIGH = (Address("0x" + digit * 40) for digit in "123")


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoundContract]:
    folder = tmp_path_factory.mktemp("credits")
    with open_node(folder / "chain") as node:
        yield bound(node, folder, derive(1, "coordinator"))


@pytest.fixture
def run(contract: BoundContract) -> Digest:
    run = some_digest()
    open_run(contract, run, [LOW, MIDDLE, HIGH])
    return run


@pytest.mark.chain
def test_epochs_are_posted_in_order_and_once(contract: BoundContract, run: Digest) -> None:
    ledger, tree = Credits(contract), CreditTree(run, {LOW: 5, HIGH: 7})
    assert ledger.newest(run) == (0, ZERO_DIGEST)
    ledger.post(1, tree)
    ledger.post(1, tree)
    assert ledger.newest(run) == (1, tree.root)
    with pytest.raises(LedgerConflictError, match="EpochNotNext"):
        ledger.post(3, tree)
    other = CreditTree(run, {LOW: 6, HIGH: 7})
    with pytest.raises(LedgerConflictError, match=f"{tree.root}.*{other.root}"):
        ledger.post(1, other)


@pytest.mark.chain
def test_credit_is_claimed_by_its_proof_up_to_what_was_posted(contract: BoundContract, run: Digest) -> None:
    ledger, tree = Credits(contract), CreditTree(run, {LOW: 5, MIDDLE: 6, HIGH: 7})
    ledger.post(1, tree)
    assert ledger.claimed(run, LOW) == 0
    ledger.claim(tree, LOW)
    ledger.claim(tree, LOW)
    assert [ledger.claimed(run, address) for address in (LOW, MIDDLE, HIGH)] == [5, 0, 0]
    with pytest.raises(LedgerConflictError, match="in one of the ledger's epochs, got none"):
        ledger.claim(CreditTree(run, {LOW: 9, MIDDLE: 6, HIGH: 7}), LOW)
    grown = CreditTree(run, {LOW: 9, MIDDLE: 6, HIGH: 7})
    ledger.post(2, grown)
    ledger.claim(grown, LOW)
    assert ledger.claimed(run, LOW) == 9


@pytest.mark.chain
def test_a_later_epoch_takes_no_credit_away(contract: BoundContract, run: Digest) -> None:
    ledger, fair = Credits(contract), CreditTree(run, {LOW: 5, MIDDLE: 6})
    ledger.post(1, fair)
    ledger.post(2, CreditTree(run, {LOW: 11}))
    ledger.post(3, CreditTree(run, {LOW: 1, MIDDLE: 1}))
    # MIDDLE was left out, and given less: what it had stands, and is claimed from the epoch that gave it.
    assert ledger.epoch_of(fair) == 1
    ledger.claim(fair, MIDDLE)
    assert ledger.claimed(run, MIDDLE) == 6
    ledger.claim(CreditTree(run, {LOW: 1, MIDDLE: 1}), MIDDLE)
    assert ledger.claimed(run, MIDDLE) == 6
    assert ledger.epoch_of(CreditTree(run, {LOW: 7})) == 0
