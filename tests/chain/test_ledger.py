import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_utils.address import to_checksum_address

from chain.credits import Credits
from chain.devnet.accounts import CHAIN_IDS, administrator
from chain.ledger import EthereumLedger, open_ledger
from chain.nodes import embedded_service
from core.canonical import ZERO_DIGEST, Address
from core.credit import CreditTree
from core.errors import LedgerConflictError, LedgerError, LedgerUnreachableError, UsageError
from core.keys import derive
from core.round_key import RoundKey
from tests.behaviours.ledger import MEMBERS, a_round, some_digest

pytestmark = pytest.mark.chain
ROOT = Path(__file__).parents[2]
COORDINATOR = derive(1, "coordinator")
GAS_OF_A_ROUND = 120_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state whose chain serves every test of this module that does not harm it."""
    state = tmp_path_factory.mktemp("shared")
    yield state
    embedded_service(state).stop()


@pytest.fixture
def ledger(shared: Path) -> EthereumLedger:
    return open_ledger("embedded", shared, COORDINATOR)


def gas_of(ledger: EthereumLedger, transaction: str) -> int:
    return int(ledger.bound.node.eth.get_transaction_receipt(transaction)["gasUsed"])  # type: ignore[arg-type]  # hex


def test_opening_again_finds_the_same_contract(ledger: EthereumLedger, shared: Path) -> None:
    assert open_ledger("embedded", shared, COORDINATOR).domain == ledger.domain
    assert ledger.domain.chain_id == CHAIN_IDS["public"]


OPENER = """
import sys
from pathlib import Path
from chain.ledger import open_ledger
from core.keys import derive
print(open_ledger("embedded", Path(sys.argv[1]), derive(int(sys.argv[2]), "coordinator")).domain.contract)
"""


def test_processes_that_open_at_once_share_one_contract(state: Path) -> None:
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, str(state), str(seed)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for seed in range(3)
    ]
    contracts = {opener.communicate()[0].strip() for opener in openers}
    assert contracts == {open_ledger("embedded", state, None).domain.contract}


def test_an_auditor_reads_without_a_key(ledger: EthereumLedger, shared: Path) -> None:
    run, auditor = some_digest(), open_ledger("embedded", shared, None)
    ledger.open_run(run, MEMBERS)
    commitment = a_round(run)
    anchor = ledger.commit(commitment)
    assert auditor.members(run) == MEMBERS
    assert auditor.read(commitment.key) == (commitment, anchor)


def test_an_auditor_writes_nothing(ledger: EthereumLedger, shared: Path) -> None:
    with pytest.raises(UsageError, match="key of an account for committing round 1, got none"):
        open_ledger("embedded", shared, None).commit(a_round(some_digest()))
    with pytest.raises(UsageError, match="posting credit epoch 1, got none"):
        Credits(open_ledger("embedded", shared, None).bound).post(1, CreditTree(some_digest(), {}))


def test_a_chain_without_a_contract_must_be_told_where_it_is(state: Path) -> None:
    with pytest.raises(UsageError, match=r"PublicLedger .*'embedded', got none"):
        open_ledger("embedded", state, None)


@pytest.mark.parametrize("address", ["0x" + "11" * 20, "0x1111", "ledger.eth"])
def test_an_address_without_code_is_no_ledger(shared: Path, address: str) -> None:
    with pytest.raises(UsageError, match=f"chain {CHAIN_IDS['public']}, got {address}$"):
        open_ledger("embedded", shared, None, Address(address))


def test_a_run_has_one_coordinator(ledger: EthereumLedger, shared: Path) -> None:
    run, other = some_digest(), open_ledger("embedded", shared, derive(2, "coordinator"))
    ledger.open_run(run, MEMBERS)
    assert other.domain.contract == ledger.domain.contract
    with pytest.raises(LedgerConflictError, match=f"{COORDINATOR.address}, got {other.bound.account}$"):
        other.open_run(run, MEMBERS)
    with pytest.raises(LedgerConflictError, match=r"NotCoordinator\(run=0x.*, sender=0x.*, coordinator=0x"):
        other.commit(a_round(run))


def test_a_refusal_says_what_was_got_and_what_was_wanted(ledger: EthereumLedger) -> None:
    run = some_digest()
    ledger.open_run(run, MEMBERS)
    with pytest.raises(LedgerConflictError, match=r"RoundNotNext\(got=2, expected=1\)"):
        ledger.commit(a_round(run, 2))


def test_a_round_costs_the_same_for_4_64_and_1024_organisations(ledger: EthereumLedger) -> None:
    costs = []
    for size in (4, 64, 1024):
        run = some_digest()
        ledger.open_run(run, [Address(to_checksum_address(f"0x{n:040x}")) for n in range(1, size + 1)])
        first = a_round(run)
        ledger.commit(first)
        anchor = ledger.commit(a_round(run, 2, first.aggregate))
        costs.append(gas_of(ledger, anchor.transaction))
    assert max(costs) <= GAS_OF_A_ROUND
    # Zero bytes of a digest are cheaper: a few hundred gas of noise.
    assert max(costs) - min(costs) < 500


def test_the_members_of_a_large_run_read_back(ledger: EthereumLedger) -> None:
    run, many = some_digest(), {derive(3, str(number)).address for number in range(100)}
    ledger.open_run(run, many)
    assert ledger.members(run) == many


def test_behind_a_url_the_coordinator_deploys_and_owns_the_contract(shared: Path, tmp_path: Path) -> None:
    url = f"{embedded_service(shared).ensure()}/public"
    ledger = open_ledger(url, tmp_path, administrator())
    run = some_digest()
    ledger.open_run(run, MEMBERS)
    assert open_ledger(url, tmp_path, administrator()).members(run) == MEMBERS
    assert ledger.domain.contract != open_ledger("embedded", shared, COORDINATOR).domain.contract
    assert open_ledger(url, tmp_path / "elsewhere", None, ledger.domain.contract).members(run) == MEMBERS


def test_behind_a_url_a_coordinator_without_funds_or_role_is_told(
    ledger: EthereumLedger, shared: Path, tmp_path: Path
) -> None:
    url, poor = f"{embedded_service(shared).ensure()}/public", derive(4, "poor")
    with pytest.raises(LedgerError, match=f"the node refuses a transaction of {poor.address}: insufficient funds"):
        open_ledger(url, tmp_path, poor)
    with pytest.raises(LedgerConflictError, match="AccessControlUnauthorizedAccount"):
        open_ledger(url, tmp_path, poor, ledger.domain.contract)


def test_a_chain_that_is_gone_is_named_with_what_was_wanted(ledger: EthereumLedger) -> None:
    ledger.bound.node.provider.endpoint_uri = "http://127.0.0.1:1"  # type: ignore[attr-defined]  # of HTTPProvider
    ledger.bound.node.provider._service = Unavailable()  # type: ignore[attr-defined]  # of ServiceProvider
    with pytest.raises(LedgerUnreachableError, match="it is gone"):
        ledger.read(RoundKey(ZERO_DIGEST, 0, 0, 1))


class Unavailable:
    def ensure(self) -> str:
        raise LedgerUnreachableError("it is gone")


def test_a_run_that_was_handed_over_is_written_by_the_new_key_alone(ledger: EthereumLedger, shared: Path) -> None:
    run, new = some_digest(), derive(5, "coordinator, again")
    ledger.open_run(run, MEMBERS)
    first = a_round(run)
    ledger.commit(first)
    stranger = open_ledger("embedded", shared, derive(2, "coordinator"))
    with pytest.raises(LedgerConflictError, match="NotCoordinator"):
        stranger.change_coordinator(run, derive(2, "coordinator").address)
    ledger.change_coordinator(run, new.address)
    successor = open_ledger("embedded", shared, new)
    successor.open_run(run, MEMBERS)
    second = a_round(run, 2, first.aggregate)
    with pytest.raises(LedgerConflictError, match="NotCoordinator"):
        ledger.commit(second)
    assert successor.commit(second)
    # After a loss the administrator hands it over, whoever the coordinator was.
    EthereumLedger(ledger.bound.written_by(administrator())).change_coordinator(run, COORDINATOR.address)
    assert ledger.coordinator(run) == COORDINATOR.address
    assert ledger.administers(administrator().address)
    assert not ledger.administers(COORDINATOR.address)
