import pytest

from core.canonical import Address, from_json, to_json
from core.credit import CreditRecord, DomainCredit, RoundCredit
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
