import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from core.canonical import ZERO_DIGEST, Address, Digest, from_json, raw, to_json
from core.credit import UNIT, CreditRecord, CreditTree, DomainCredit, RoundCredit, credit_leaf
from core.errors import FormatError

ONE, TWO = Address("0x" + "11" * 20), Address("0x" + "22" * 20)
RECORD = CreditRecord(RoundCredit({"all": DomainCredit(1.0, {ONE: 0.75, TWO: 0.0}, 0.25, 0.0)}), {ONE: 2.0, TWO: 0.0})


def test_a_credit_survives_its_file() -> None:
    data = to_json(RECORD.to_dict())
    again = CreditRecord.from_dict(from_json(data))
    assert again == RECORD
    assert again.digest == RECORD.digest
    assert to_json(again.to_dict()) == data


@pytest.mark.parametrize(
    "damage",
    [
        {"domains": {}},
        {"domains": []},
        {"domains": {"all": 1}},
        {"domains": {"all": {"change": 1.0}}},
        {"incomes": {ONE: 2.0}},
        {"incomes": {ONE: "2", TWO: 0.0}},
        {"incomes": {"medical": 2.0, TWO: 0.0}},
        {"note": 1},
    ],
)
def test_a_malformed_credit_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        CreditRecord.from_dict(RECORD.to_dict() | damage)


# Trees: leaves as `abi.encode` writes them


RUN = Digest("0x" + "ab" * 32)
LOW, MIDDLE, HIGH = (Address("0x" + digit * 40) for digit in "123")
TREE = CreditTree(RUN, {HIGH: 3, LOW: 1, MIDDLE: 2})


def twice(data: bytes) -> bytes:
    return bytes(keccak(keccak(data)))


def pair(a: bytes, b: bytes) -> bytes:
    return bytes(keccak(min(a, b) + max(a, b)))


def test_a_leaf_is_what_the_contract_hashes() -> None:
    assert credit_leaf(RUN, LOW, 7) == twice(encode(["bytes32", "address", "uint256"], [raw(RUN), LOW, 7]))


def test_the_root_is_over_leaves_in_the_order_of_addresses() -> None:
    low, middle, high = (credit_leaf(RUN, address, amount) for address, amount in ((LOW, 1), (MIDDLE, 2), (HIGH, 3)))
    assert TREE.root == "0x" + pair(pair(low, middle), high).hex()
    assert TREE.proof(LOW) == (middle, high)
    assert TREE.proof(HIGH) == (pair(low, middle),)
    assert CreditTree(RUN, {}).root == ZERO_DIGEST


def test_whoever_is_not_in_a_tree_has_no_proof() -> None:
    with pytest.raises(KeyError):
        TREE.proof(Address("0x" + "4" * 40))


def test_amounts_are_kept_in_whole_units() -> None:
    tree = CreditTree.of(RUN, {LOW: 1.5, HIGH: 0.0})
    assert tree.cumulative == {LOW: 1_500_000_000_000_000_000, HIGH: 0}
    assert UNIT == 10**18


def test_a_tree_survives_its_file_with_amounts_of_any_size() -> None:
    large = CreditTree(RUN, {LOW: 10**59, HIGH: 0})
    again = CreditTree.from_dict(from_json(to_json(large.to_dict())))
    assert (again, again.root) == (large, large.root)


@pytest.mark.parametrize("amount", [5, "-1", "05", "1e3", "", "9" * 61, None, "\u0663"])
def test_a_malformed_tree_is_refused(amount: object) -> None:
    with pytest.raises(FormatError):
        CreditTree.from_dict({"run": RUN, "cumulative": {LOW: amount}})
