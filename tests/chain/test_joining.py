"""Kits and requests: they come back from their files, and a request holds for its own kit, key and signature alone."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chain.joining import JoinKit, JoinRequest
from chain.membership import digest_of_public_key, request_membership
from core.canonical import Digest
from core.errors import ForgeryError, FormatError, IntegrityError
from core.keys import derive
from core.names import Name
from tests import federation as f

KIT = JoinKit(
    Name("clinics"), Name("medical"), "foedus.example:9092", "-----BEGIN CERTIFICATE-----\n", f.COORDINATOR.address,
    f.CHAIN, "https://rpc.example", "foedus-tiny", Digest("0x" + "ab" * 32), 100.0, "foedus 0.1.0",
)  # fmt: skip
KEY = derive(1, "medical")


def node_key(secret: int) -> str:
    public = ec.derive_private_key(secret, ec.SECP384R1()).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def join_request(kit: JoinKit = KIT) -> JoinRequest:
    digest = digest_of_public_key(node_key(7).encode())
    membership = request_membership(KEY, kit.chain, digest, 0, 2**40)
    return JoinRequest(kit.federation, kit.organisation, kit.digest, node_key(7), membership, "foedus 0.1.0")


def test_both_come_back_from_their_files() -> None:
    assert JoinKit.from_json(KIT.to_json()) == KIT
    assert JoinRequest.from_json(join_request().to_json()) == join_request()
    assert join_request().address == KEY.address


def test_what_is_none_is_refused() -> None:
    for noun, data in ((JoinKit, KIT.to_json()), (JoinRequest, join_request().to_json())):
        for bad in (b"{}", b"[]", b"x", data[:-1] + b',"zz":1}', data.replace(b"medical", b"med\\nical")):
            with pytest.raises(FormatError):
                noun.from_json(bad)


def test_a_kit_s_digest_covers_every_field() -> None:
    others = {
        replace(KIT, superlink="other:9092").digest,
        replace(KIT, ca="").digest,
        replace(KIT, norm_bound=1.0).digest,
    }
    assert len({KIT.digest, *others}) == 4


def test_a_request_holds_for_its_own_kit() -> None:
    assert join_request().verified(KIT) == join_request()
    for other in (
        replace(KIT, organisation=Name("coding")),
        replace(KIT, base="smollm2"),
        replace(KIT, federation=Name("x")),
    ):
        with pytest.raises(IntegrityError, match="request of medical: expected"):
            join_request().verified(other)


def test_a_request_with_another_node_key_contract_or_signature_is_refused() -> None:
    with pytest.raises(IntegrityError, match="expected node key"):
        replace(join_request(), node_key=node_key(8)).verified(KIT)
    foreign = replace(KIT.chain, chain_id=1)
    elsewhere = request_membership(KEY, foreign, join_request().membership.node_key, 0, 2**40)
    with pytest.raises(IntegrityError, match="expected chain and contract"):
        replace(join_request(), membership=elsewhere).verified(KIT)
    stolen = replace(join_request().membership, organisation=derive(1, "coding").address)
    with pytest.raises(ForgeryError, match="expected the signature of"):
        replace(join_request(), membership=stolen).verified(KIT)
