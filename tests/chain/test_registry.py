"""Organisations register by their own signature; the administrator ends that for good."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_hash.auto import keccak

from chain.contract import BoundContract
from chain.devnet.accounts import CHAIN_IDS, administrator
from chain.ledger import EthereumLedger
from chain.registry import MembershipRequest, Registry, digest_of_node_key, request_membership
from core.canonical import ZERO_DIGEST, Address, to_json
from core.errors import FormatError, LedgerConflictError, UsageError
from core.keys import Domain, derive
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import COORDINATOR

DOMAIN = Domain(CHAIN_IDS["public"], Address("0x" + "11" * 20))


def a_request(**changes: Any) -> MembershipRequest:
    return replace(request_membership(derive(1, "coding"), DOMAIN, some_digest(), 0, 2**40), **changes)


# Files


def test_a_request_comes_back_from_its_file() -> None:
    request = a_request()
    assert MembershipRequest.from_json(request.to_json()) == request


@pytest.mark.parametrize(
    ("field", "value", "fact"),
    [
        ("signature", "0x12", "0x12"),
        ("deadline", "soon", "soon"),
        ("organisation", "coding", "coding"),
        ("domain", {"chain_id": 1}, "contract"),
        ("note", "", "note"),
    ],
)
def test_a_malformed_request_is_refused_with_its_fault(field: str, value: Any, fact: str) -> None:
    content = {**json.loads(a_request().to_json()), field: value}
    with pytest.raises(FormatError, match=fact):
        MembershipRequest.from_json(to_json(content))


def test_a_node_key_s_digest_is_that_of_its_der(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    path = tmp_path / "key.pub"
    path.write_bytes(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    expected = keccak(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    assert digest_of_node_key(path) == f"0x{expected.hex()}"


@pytest.mark.parametrize("content", [None, b"", b"ssh-rsa nothing", b"\xff"])
def test_a_file_without_a_node_key_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.pub"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)):
        digest_of_node_key(path)


# The contract


@pytest.fixture
def registry(public: BoundContract) -> Registry:
    return Registry(public)


def deadline() -> int:
    return int(time.time()) + 3600


@pytest.mark.chain
def test_an_organisation_registers_by_its_own_signature(registry: Registry) -> None:
    key, node_key = derive(1, some_digest()), some_digest()
    assert registry.read(key.address) is None
    request = request_membership(key, registry.domain, node_key, registry.nonce(key.address), deadline())
    first = registry.register(request)
    assert registry.register(request) == first == registry.read(key.address)
    assert first.node_key == node_key
    assert registry.nonce(key.address) == 1


@pytest.mark.chain
def test_a_request_for_another_contract_is_worthless(registry: Registry) -> None:
    key = derive(1, some_digest())
    elsewhere = replace(registry.domain, chain_id=CHAIN_IDS["private"])
    request = request_membership(key, elsewhere, ZERO_DIGEST, 0, deadline())
    with pytest.raises(UsageError, match=f"{CHAIN_IDS['public']}.*, got one for .*{CHAIN_IDS['private']}"):
        registry.register(request)
    with pytest.raises(LedgerConflictError, match="SignerNotOrganisation"):
        registry.register(replace(request, domain=registry.domain))
    assert registry.read(key.address) is None


@pytest.mark.chain
def test_a_request_that_is_too_late_is_refused(registry: Registry) -> None:
    key = derive(1, some_digest())
    with pytest.raises(LedgerConflictError, match=r"SignatureExpired\(deadline=1,"):
        registry.register(request_membership(key, registry.domain, ZERO_DIGEST, 0, 1))


@pytest.mark.chain
def test_revocation_is_the_administrator_s_and_final(public: BoundContract, registry: Registry) -> None:
    key, ledger = derive(1, some_digest()), EthereumLedger(public)
    registry.register(request_membership(key, registry.domain, ZERO_DIGEST, 0, deadline()))
    assert ledger.revoked([key.address, COORDINATOR.address]) == {}
    with pytest.raises(LedgerConflictError, match="AccessControlUnauthorizedAccount"):
        registry.revoke(key.address)
    owned = Registry(BoundContract(public.node, "PublicLedger", public.address, administrator()))
    revoked = owned.revoke(key.address)
    assert owned.revoke(key.address) == revoked
    assert revoked.revoked_at > revoked.registered_at
    assert ledger.revoked([key.address, COORDINATOR.address]) == {key.address: revoked.revoked_at}
    with pytest.raises(LedgerConflictError, match="OrganisationAlreadyRevoked"):
        registry.register(request_membership(key, registry.domain, ZERO_DIGEST, 1, deadline()))
