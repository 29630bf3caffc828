"""Addresses of created contracts, against published ones."""

from chain.addresses import create_address

CREATOR = bytes.fromhex("6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0")


def test_a_contract_stands_where_its_creator_and_nonce_say() -> None:
    """The example of the Ethereum wiki's page on CREATE, nonces 0 to 3."""
    assert [create_address(CREATOR, nonce).hex() for nonce in range(4)] == [
        "cd234a471b72ba2f1ccf0a70fcaba648a5eecd8d",
        "343c43a37d37dff08ae8c4a11544c718abb4fcf8",
        "f778b86fa74e846c4f0a1fbd1335fe81c00a0c91",
        "fffd933a0bc612844eaf0c6fe3e5b8e9b6c1d19c",
    ]
