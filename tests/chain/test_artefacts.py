import pytest

from chain import artefacts


@pytest.mark.parametrize("name", ["PublicLedger", "PrivateLedger"])
def test_an_artefact_has_an_abi_and_bytecode_within_the_limit_of_a_contract(name: str) -> None:
    artefact = artefacts.load(name)
    assert artefact.name == name
    assert {entry["type"] for entry in artefact.abi} >= {"constructor", "error", "event", "function"}
    # EIP-170: the code that is deployed has at most 24,576 bytes; creation code is a little longer.
    assert 0 < len(bytes.fromhex(artefact.bytecode.removeprefix("0x"))) < 24_576


def test_an_artefact_is_read_once() -> None:
    assert artefacts.load("PublicLedger") is artefacts.load("PublicLedger")


def test_an_artefact_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        artefacts.load("NoLedger")
