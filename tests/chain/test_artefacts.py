"""ABI and bytecode are read from the assets by name."""

import pytest

from chain import artefacts


@pytest.mark.parametrize("name", ["PublicLedger", "PrivateLedger"])
def test_an_artefact_has_an_abi_and_bytecode_that_fits_in_a_transaction(name: str) -> None:
    artefact = artefacts.load(name)
    assert artefact.name == name
    assert {entry["type"] for entry in artefact.abi} >= {"constructor", "function", "event", "error"}
    assert 0 < len(bytes.fromhex(artefact.bytecode.removeprefix("0x"))) <= 2 * 24_576  # EIP-3860


def test_the_same_artefact_is_read_once() -> None:
    assert artefacts.load("PublicLedger") is artefacts.load("PublicLedger")


def test_there_is_no_artefact_of_another_name() -> None:
    with pytest.raises(FileNotFoundError):
        artefacts.load("Ledger")
