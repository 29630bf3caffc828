"""Membership requests on an embedded chain: good once, and revoked for good."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chain.contract import BoundContract
from chain.devnet.accounts import administrator
from chain.ledger import EthereumLedger
from chain.membership import request_membership
from chain.registry import RegisteredOrganisation, Registry
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import LedgerConflictError, UsageError
from core.keys import Domain, derive
from tests.behaviours.ledger import some_digest
from tests.chain.chains import bound, open_node

NEVER = 2**48 - 1
KEY = derive(1, "medical")
DOMAIN = Domain(31337, Address("0x5FbDB2315678afecb367f032d93F642f64180aa3"))
NODE_KEY = Digest("0x" + "ab" * 32)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoundContract]:
    folder = tmp_path_factory.mktemp("registry")
    with open_node(folder / "chain") as node:
        yield bound(node, folder, derive(1, "coordinator"))


@pytest.fixture(scope="module")
def registry(contract: BoundContract) -> Registry:
    return Registry(contract)


@pytest.mark.chain
def test_a_registration_reads_back_and_uses_up_its_nonce(registry: Registry) -> None:
    key = derive(1, some_digest())
    assert registry.read(key.address) is None
    assert registry.nonce(key.address) == 0
    request = request_membership(key, registry.domain, NODE_KEY, 0, NEVER)
    registered = registry.register(request)
    assert registered == RegisteredOrganisation(NODE_KEY, registered.registered_at, 0) == registry.read(key.address)
    assert registered.registered_at > 0
    assert registry.nonce(key.address) == 1
    assert registry.register(request) == registered


@pytest.mark.chain
def test_a_new_node_key_replaces_the_old_and_keeps_the_first_block(registry: Registry) -> None:
    key = derive(1, some_digest())
    first = registry.register(request_membership(key, registry.domain, NODE_KEY, 0, NEVER))
    second = registry.register(request_membership(key, registry.domain, ZERO_DIGEST, 1, NEVER))
    assert second == replace(first, node_key=ZERO_DIGEST)


@pytest.mark.chain
def test_an_expired_or_foreign_request_is_refused(registry: Registry) -> None:
    key, other = derive(1, some_digest()), derive(1, some_digest())
    with pytest.raises(LedgerConflictError, match=r"SignatureExpired\(deadline=1, "):
        registry.register(request_membership(key, registry.domain, NODE_KEY, 0, 1))
    stolen = replace(request_membership(other, registry.domain, NODE_KEY, 0, NEVER), organisation=key.address)
    with pytest.raises(LedgerConflictError, match=f"SignerNotOrganisation.*organisation={key.address.lower()}"):
        registry.register(stolen)
    with pytest.raises(UsageError, match=f"{registry.domain.chain_id}.*, got one for .*31337"):
        registry.register(request_membership(key, replace(registry.domain, chain_id=31337), NODE_KEY, 0, NEVER))
    assert registry.read(key.address) is None


@pytest.mark.chain
def test_only_the_administrator_revokes_and_only_once(registry: Registry, contract: BoundContract) -> None:
    key, ledger = derive(1, some_digest()), EthereumLedger(contract)
    registry.register(request_membership(key, registry.domain, NODE_KEY, 0, NEVER))
    assert ledger.revoked([key.address, KEY.address]) == {}
    with pytest.raises(LedgerConflictError, match="AccessControlUnauthorizedAccount"):
        registry.revoke(key.address)
    owned = Registry(BoundContract(contract.node, "PublicLedger", contract.address, administrator()))
    revoked = owned.revoke(key.address)
    assert revoked.revoked_at > revoked.registered_at
    assert owned.revoke(key.address) == revoked
    assert ledger.revoked([key.address, KEY.address]) == {key.address: revoked.revoked_at}
    with pytest.raises(LedgerConflictError, match="OrganisationAlreadyRevoked"):
        registry.register(request_membership(key, registry.domain, NODE_KEY, 1, NEVER))
    with pytest.raises(LedgerConflictError):
        owned.revoke(derive(1, some_digest()).address)


def noting_reads(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """The organisations whose registration is read from here on."""
    asked: list[Address] = []
    read = Registry.read

    def noted(self: Registry, organisation: Address) -> RegisteredOrganisation | None:
        asked.append(organisation)
        return read(self, organisation)

    monkeypatch.setattr(Registry, "read", noted)
    return asked


@pytest.mark.chain
def test_who_is_revoked_is_asked_again_only_behind_another_block(
    registry: Registry, contract: BoundContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, other, ledger = derive(1, some_digest()), derive(1, some_digest()), EthereumLedger(contract)
    registry.register(request_membership(key, registry.domain, NODE_KEY, 0, NEVER))
    asked = noting_reads(monkeypatch)
    assert ledger.revoked([key.address]) == ledger.revoked([key.address]) == {}
    assert asked == [key.address]
    assert ledger.revoked([other.address]) == {}, "others are asked about"
    owned = Registry(BoundContract(contract.node, "PublicLedger", contract.address, administrator()))
    assert ledger.revoked([key.address]) == {}
    revoked = owned.revoke(key.address).revoked_at
    assert ledger.revoked([key.address]) == {key.address: revoked}


@pytest.mark.chain
def test_of_many_the_revoked_are_found_without_a_question_each(
    registry: Registry, contract: BoundContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (derive(1, some_digest()) for _ in range(2))
    for key in (first, second):
        registry.register(request_membership(key, registry.domain, NODE_KEY, 0, NEVER))
    owned, ledger = (
        Registry(BoundContract(contract.node, "PublicLedger", contract.address, administrator())),
        EthereumLedger(contract),
    )
    many = [derive(2, str(number)).address for number in range(100)] + [first.address, second.address]
    asked = noting_reads(monkeypatch)
    assert ledger.revoked(many) == {}
    assert asked == []
    revoked = {key.address: owned.revoke(key.address).revoked_at for key in (first, second)}
    asked.clear()
    assert ledger.revoked(many) == ledger.revoked(many) == revoked
    assert asked == [first.address, second.address]
    assert EthereumLedger(contract).revoked(many) == revoked, "whoever looks later finds them, too"
