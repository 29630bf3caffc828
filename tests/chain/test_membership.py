"""Membership requests as files: signed, and bound to every field."""

from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_hash.auto import keccak

from chain.membership import MembershipRequest, digest_of_node_key, digest_of_public_key, request_membership
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import FormatError, UsageError
from core.keys import Domain, derive

KEY = derive(1, "medical")
DOMAIN = Domain(31337, Address("0x5FbDB2315678afecb367f032d93F642f64180aa3"))
NODE_KEY = Digest("0x" + "ab" * 32)


def test_a_request_comes_back_from_its_file() -> None:
    request = request_membership(KEY, DOMAIN, NODE_KEY, 3, 1_900_000_000)
    assert (request.organisation, request.node_key, request.nonce) == (KEY.address, NODE_KEY, 3)
    assert MembershipRequest.from_json(request.to_json()) == request


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"signature":"0x', b'"signature":"'),
        (b'"signature":"0x', b'"signature":"0xzz'),
        (b'"nonce":3', b'"nonce":"3"'),
        (b'"nonce":3', b'"nonze":3'),
        (b'"chain_id":31337', b'"chain_id":true'),
        (b'"deadline":1900000000', b'"deadline":1900000000,"more":1'),
    ],
)
def test_a_malformed_request_is_refused(before: bytes, after: bytes) -> None:
    data = request_membership(KEY, DOMAIN, NODE_KEY, 3, 1_900_000_000).to_json()
    assert before in data
    with pytest.raises(FormatError):
        MembershipRequest.from_json(data.replace(before, after))


def test_what_is_signed_is_bound_to_every_field() -> None:
    request = request_membership(KEY, DOMAIN, NODE_KEY, 3, 1_900_000_000)
    others = {
        request_membership(KEY, replace(DOMAIN, chain_id=1), NODE_KEY, 3, 1_900_000_000).signature,
        request_membership(KEY, DOMAIN, ZERO_DIGEST, 3, 1_900_000_000).signature,
        request_membership(KEY, DOMAIN, NODE_KEY, 4, 1_900_000_000).signature,
        request_membership(KEY, DOMAIN, NODE_KEY, 3, 1_900_000_001).signature,
        request_membership(derive(1, "coding"), DOMAIN, NODE_KEY, 3, 1_900_000_000).signature,
    }
    assert len(others - {request.signature}) == 5


def test_a_node_key_s_digest_is_that_of_its_der_form(tmp_path: Path) -> None:
    public = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    (tmp_path / "node.pub").write_bytes(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" node@here\n")
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert digest_of_node_key(tmp_path / "node.pub") == "0x" + bytes(keccak(der)).hex()


def test_a_point_or_a_kind_that_flower_has_not_is_no_node_key() -> None:
    uncompressed = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    line = uncompressed.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    kind, body = line.split()
    point = b64decode(body)
    start = len(point) - 97  # 0x04 and two coordinates of 48 bytes
    with pytest.raises(FormatError, match="uncompressed"):
        digest_of_public_key(kind + b" " + b64encode(point[:start] + b"\x02" + point[start + 1 :]))
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(FormatError, match="elliptic curve"):
        digest_of_public_key(other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))


def test_a_file_without_a_public_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no key")
    for name in ("text", "nothing"):
        with pytest.raises(UsageError, match=str(tmp_path / name)):
            digest_of_node_key(tmp_path / name)
