"""One embedded chain: its blocks follow from its transactions, and are there when it is opened again."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chain.devnet.accounts import CHAIN_IDS
from chain.devnet.evm import GAS_LIMIT, Call, EmbeddedChain, InvalidTransactionError, RevertedError
from core.keys import derive
from tests.chain.devnet.ledger_chain import ABI, ALLOC, OWNER, RUNS, LedgerChain, signed

pytestmark = pytest.mark.chain
SOMEONE = "0x" + "33" * 20


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerChain]:
    chain = LedgerChain(tmp_path_factory.mktemp("evm") / "chain.sqlite")
    yield chain
    chain.evm.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[EmbeddedChain]:
    chain = EmbeddedChain(tmp_path / "chain.sqlite", CHAIN_IDS["public"], ALLOC)
    yield chain
    chain.close()


def test_the_same_transactions_at_the_same_times_make_the_same_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chain.devnet.evm.time.time", lambda: 1_800_000_000.0)
    chains = [LedgerChain(tmp_path / name / "chain.sqlite") for name in ("one", "two")]
    assert chains[0].evm.head.block_number == 5
    assert chains[0].evm.head.hash == chains[1].evm.head.hash
    for chain in chains:
        chain.evm.close()


def test_time_never_stands_still_or_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.devnet.evm.time.time", lambda: 0.0)
    chain = LedgerChain(tmp_path / "chain.sqlite")
    times = [chain.evm.header(number).timestamp for number in range(6)]  # type: ignore[union-attr]  # they exist
    assert times == sorted(set(times))
    chain.evm.close()


def test_a_chain_is_the_same_when_it_is_opened_again(tmp_path: Path) -> None:
    chain = LedgerChain(tmp_path / "chain.sqlite")
    hashes = [chain.evm.header(number).hash for number in range(6)]  # type: ignore[union-attr]  # they exist
    chain.evm.close()
    # The funds of the genesis are those that it was begun with.
    again = EmbeddedChain(tmp_path / "chain.sqlite", CHAIN_IDS["public"], {})
    assert [again.header(number).hash for number in range(6)] == hashes  # type: ignore[union-attr]  # they exist
    assert again.header(6) is None
    again.send(signed(chain.nonce, SOMEONE))
    assert again.head.block_number == 6
    again.close()


@pytest.mark.parametrize(
    ("raw", "fact"),
    [
        (b"", "expected a signed transaction"),
        (b"abc", "expected a signed transaction"),
        (b"\x03abc", "without blobs"),
        (signed(0, SOMEONE, chainId=1), f"chain {CHAIN_IDS['public']}, got one for chain 1"),
        (signed(5, SOMEONE), "nonce"),
        (signed(0, SOMEONE, value=2 * ALLOC[bytes.fromhex(OWNER.address[2:])]), "insufficient funds"),
        (signed(0, SOMEONE, gas=2 * GAS_LIMIT), "gas"),
    ],
)
def test_a_transaction_that_cannot_be_mined_is_refused_and_changes_nothing(
    empty: EmbeddedChain, raw: bytes, fact: str
) -> None:
    with pytest.raises(InvalidTransactionError, match=fact):
        empty.send(raw)
    assert empty.head.block_number == 0
    empty.send(signed(0, SOMEONE))
    assert empty.head.block_number == 1


def test_a_mined_transaction_is_found_with_its_block_and_receipt(empty: EmbeddedChain) -> None:
    located = empty.locate(empty.send(signed(0, SOMEONE, value=3)))
    assert located is not None
    assert (located.transaction.value, located.index, located.block.number) == (3, 0, 1)
    assert located.receipts[0].gas_used == 21_000
    assert empty.block_by_hash(located.block.hash) == located.block == empty.block(empty.head)
    assert empty.locate(bytes(32)) is None
    assert empty.block_by_hash(bytes(32)) is None


def call_of(ledger: LedgerChain, data: str, **changes: object) -> Call:
    sender, to = (bytes.fromhex(address[2:]) for address in (OWNER.address, ledger.ledger))
    return replace(Call(sender, to, bytes.fromhex(data[2:]), 0, GAS_LIMIT), **changes)  # type: ignore[arg-type]  # fields


def test_a_call_is_executed_on_the_state_after_any_block(ledger: LedgerChain) -> None:
    call = call_of(ledger, ABI.encode_abi("getRun", [RUNS[2]]))
    outputs = [ledger.evm.call(call, ledger.evm.header(number)) for number in (4, 5)]
    assert [any(output) for output in outputs] == [False, True]


def test_a_call_that_reverts_keeps_the_contract_s_error(ledger: LedgerChain) -> None:
    call = call_of(ledger, ABI.encode_abi("openRun", [RUNS[0], [OWNER.address]]))
    for execute in (lambda: ledger.evm.call(call, ledger.evm.head), lambda: ledger.evm.estimate_gas(call)):
        with pytest.raises(RevertedError) as caught:
            execute()
        assert caught.value.data[4:] == RUNS[0]


def test_a_call_that_runs_out_of_gas_has_no_error_of_the_contract(ledger: LedgerChain) -> None:
    data = ABI.encode_abi("openRun", [b"\xee" * 32, [OWNER.address]])
    with pytest.raises(RevertedError, match="execution failed") as caught:
        ledger.evm.call(call_of(ledger, data, gas=30_000), ledger.evm.head)
    assert caught.value.data == b""


def test_a_call_with_value_needs_funds(ledger: LedgerChain) -> None:
    poor = bytes.fromhex(derive(4, "poor").address[2:])
    with pytest.raises(InvalidTransactionError):
        ledger.evm.call(Call(poor, poor, b"", 1, GAS_LIMIT), ledger.evm.head)


def test_only_blocks_with_logs_are_read_for_logs(ledger: LedgerChain) -> None:
    ledger.evm.send(signed(ledger.nonce, SOMEONE))
    ledger.nonce += 1
    newest = ledger.evm.head.block_number
    assert newest not in [block.number for block in ledger.evm.blocks_with_logs(0, newest + 5)]
    assert [block.number for block in ledger.evm.blocks_with_logs(3, 5)] == [3, 4, 5]
