"""An erasure made of plain values: coding asks to be erased from the small federation of tests/federation.py."""

from dataclasses import replace
from datetime import date
from typing import Any

from core.canonical import ZERO_DIGEST, Digest
from core.erasures import Attestation, ErasureRequest, Receipt
from core.genesis import Genesis
from core.keys import Key
from core.signed import Signed
from tests import federation as f

TODAY = date(2026, 3, 1)
DAY = TODAY.isoformat()


def attestation(genesis: Genesis, **changes: Any) -> Attestation:
    """Of generation 1 of lane 0, which grows from round 1; everybody held what is erased."""
    nonce = f.other("nonce")
    asked = ErasureRequest(
        genesis.digest, f.address("coding"), "remove", (0,), ZERO_DIGEST, 0, "GDPR Art. 17", DAY, nonce
    )
    made = Attestation(
        request=asked.sign(f.key("coding"), genesis.chain),
        lane=0,
        generation=1,
        parent_generation=0,
        parent_round=1,
        reaggregated=2,
        rounds=2,
        erased=(f.address("coding"),),
        destroyed=(f.other("state"),),
        salts_destroyed=(f.other("record"),),
        holders=tuple(member.address for member in genesis.organisations),
        recomputed=2,
        attested=0,
        date=DAY,
        salt="7b" * 32,
    )
    return replace(made, **changes)


def attested(genesis: Genesis, coordinator: str = "", **changes: Any) -> Signed[Attestation]:
    """The same, signed by the coordinator, or by another."""
    key = f.key(coordinator) if coordinator else f.COORDINATOR
    return attestation(genesis, **changes).sign(key, genesis.chain)


def signed_receipt(genesis: Genesis, erasure: Digest, key: Key) -> Signed[Receipt]:
    """A holder's receipt."""
    return Receipt(genesis.digest, key.address, erasure).sign(key, genesis.chain)
