"""The vectors in docs/reference/formats.md, recomputed: from the description where that is short, and by the project.

`python -m tests.test_formats` writes them anew, which is right only together with a new version tag.
"""

import hashlib
import hmac
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coincurve import PublicKey as Point
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eth_hash.auto import keccak

from core import keys, lora, merkle, seeds
from core.adapter import AdapterState
from core.answers import AnswerReceipt
from core.calibration import Calibration, CalibrationRecord
from core.canonical import ZERO_DIGEST, Address, Digest, commitment, digest, raw, to_json
from core.compression import FORMS
from core.erasures import hidden
from core.keys import Domain
from core.storage.artifacts import Artifacts
from core.storage.blobs import Folder
from core.storage.readers import NOBODY
from core.storage.sealing import Wraps, seal
from core.update import Bid, UpdateManifest
from core.wire import Packed
from llm.records import Message, Record

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "formats.md"
_BLOCK = re.compile(r"(## Vectors\n\n```json\n)(.*?)(```)", re.DOTALL)

DOMAIN = Domain(6710387, Address("0x336Fe6ddc487B2aC943B71E3b260C147426AaFfE"))
KEY = keys.derive(7, "medical")
ONES, TWOS, THREES = (Digest("0x" + f"{digit}" * 64) for digit in (1, 2, 3))
RECORD = Record((Message("user", "Which dose?"),), "None.")
STATE = AdapterState(
    {"m.lora_B": np.array([[0.5], [-1.0], [0.0]], np.float32), "m.lora_A": np.array([[1.0, 2.0]], np.float32)}
)
WIDE = AdapterState({"m.lora_B": np.arange(-34, 34, dtype=np.float32).reshape(34, 2) ** 3 / 1000})
MANIFEST = UpdateManifest(
    genesis=ONES,
    organisation=KEY.address,
    lane=0,
    generation=0,
    round=1,
    parent=ONES,
    update=STATE.digest,
    examples=448,
    tokens=1000,
    bid=Bid(25, 8),
    nonce=TWOS,
    metrics={"loss": 1.5},
)

CALIBRATION = Calibration(
    genesis=ONES,
    aggregate=STATE.digest,
    method="gradient",
    noise=0.4,
    score=0.25,
    familiarity=75.5,
    certainty=0.02,
    records=(CalibrationRecord(KEY.address, RECORD.digest),),
)

RECEIPT = AnswerReceipt(
    genesis=ONES,
    run="run",
    server=KEY.address,
    base=TWOS,
    aggregate=STATE.digest,
    request=digest("request", to_json({"model": "run"})),
    answer=digest("answer", to_json({"content": "None."})),
    trace=ZERO_DIGEST,
)


def computed() -> dict[str, Any]:
    """Every vector, by the project."""
    leaves = [merkle.leaf(raw(value)) for value in (ONES, TWOS, THREES)]
    return {
        "adapter": {"bytes": STATE.to_bytes().hex(), "digest": STATE.digest},
        "wire": {
            form: {"bytes": bytes(Packed.of(WIDE, form).data).hex(), "digest": Packed.of(WIDE, form).digest}
            for form in FORMS
        },
        "answer_receipt": {
            "json": to_json(RECEIPT.to_dict()).decode(),
            "digest": RECEIPT.digest,
            "signature": RECEIPT.sign(KEY, DOMAIN).signatures[0],
        },
        "calibration": {
            "json": to_json(CALIBRATION.to_dict()).decode(),
            "digest": CALIBRATION.digest,
            "signature": CALIBRATION.sign(KEY, DOMAIN).signatures[0],
        },
        "commitment": {"salt": "11" * 32, "value": TWOS, "digest": commitment(bytes.fromhex("11" * 32), TWOS)},
        "derived_key": {"seed": 7, "name": "medical", "address": KEY.address},
        "fresh_a": {
            "module": "m",
            "inputs": 4,
            "outputs": 3,
            "rank": 2,
            "seed": 7,
            "digest": lora.factor(lora.fresh(lora.Layout.of({"m": (4, 3)}, 2), seeds.shared(7)), "A").digest,
        },
        "manifest": {
            "json": to_json(MANIFEST.to_dict()).decode(),
            "digest": MANIFEST.digest,
            "chain_id": DOMAIN.chain_id,
            "contract": DOMAIN.contract,
            "signature": MANIFEST.sign(KEY, DOMAIN).signatures[0],
        },
        "merkle": {"values": [ONES, TWOS, THREES], "root": "0x" + merkle.root(leaves).hex()},
        "erased_records": {
            "key": "derived_key",
            "nonce": TWOS,
            "records": [ONES, THREES],
            "commitment": hidden(KEY.salt_for(TWOS), [THREES, ONES]),
        },
        "record": {
            "json": to_json({"prompt": [{"role": "user", "content": "Which dose?"}], "answer": "None."}).decode(),
            "digest": RECORD.digest,
            "shards": 4,
            "shard": seeds.shard_of(RECORD.digest, 4),
        },
        "sealed": _sealed(),
        "seeds": {
            "seed": 7,
            "organisation": KEY.address,
            "round": 1,
            "shared": seeds.shared(7).hex(),
            "local": seeds.local(7, KEY.address, 1).hex(),
            "ticket": seeds.ticket(7, KEY.address, 1),
        },
    }


def _sealed() -> dict[str, Any]:
    """A state, sealed under a key that is not random for two readers."""
    store = Artifacts(Folder(Path()), "22" * 32, NOBODY, None)
    place, key = store.place(STATE.digest), b"\x33" * 32
    label = b"foedus/sealed/v1\0" + place.encode()
    readers = [KEY, keys.derive(7, "coordinator")]
    return {
        "salt": store.salt,
        "digest": STATE.digest,
        "name": place,
        "key": key.hex(),
        "readers": [reader.public for reader in readers],
        "sealed": b"".join(seal(key, label, STATE.parts())).hex(),
        "keys": to_json(Wraps.of(key, label, [reader.public for reader in readers]).to_dict()).decode(),
    }


def test_a_record_and_what_hides_it_are_computed_as_documented() -> None:
    vector = documented()["record"]
    found = hashlib.sha256(b"foedus/record/v1\0" + vector["json"].encode()).digest()
    assert "0x" + found.hex() == vector["digest"]
    drawn = hashlib.sha256(b"foedus/shard/v1\0" + found).digest()
    assert int.from_bytes(drawn[:8], "big") % vector["shards"] == vector["shard"]
    erased = documented()["erased_records"]
    nonce, records = bytes.fromhex(erased["nonce"][2:]), [bytes.fromhex(r[2:]) for r in erased["records"]]
    salt = hmac.digest(KEY.secret, b"foedus/records-salt/v1\0" + nonce, "sha256")
    value = hashlib.sha256(b"foedus/records/v1\0" + b"".join(records)).digest()
    assert "0x" + hashlib.sha256(b"foedus/commitment/v1\0" + salt + value).hexdigest() == erased["commitment"]


def documented() -> dict[str, Any]:
    """The vectors of the page."""
    match = _BLOCK.search(PAGE.read_text(encoding="utf-8"))
    vectors: dict[str, Any] = json.loads(match[2]) if match else {}
    return vectors


@pytest.mark.parametrize("name", sorted(computed()))
def test_the_project_computes_the_documented_vector(name: str) -> None:
    assert computed()[name] == documented()[name]


def test_an_adapter_is_written_as_documented() -> None:
    header = (
        b'{"m.lora_A":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},'
        b'"m.lora_B":{"dtype":"F32","shape":[3,1],"data_offsets":[8,20]}}'
    )
    header += b" " * (-len(header) % 8)
    data = struct.pack("<Q", len(header)) + header + struct.pack("<5f", 1.0, 2.0, 0.5, -1.0, 0.0)
    assert documented()["adapter"] == {"bytes": data.hex(), "digest": _digest("adapter", data)}


def test_a_compressed_update_reads_as_documented() -> None:
    vectors, numbers = documented()["wire"], [n**3 / 1000 for n in range(-34, 34)]
    header = b"\0\x08m.lora_B" + struct.pack("<II", 34, 2)
    payloads = {}
    for code, (form, vector) in enumerate(sorted(vectors.items()), 1):
        data = bytes.fromhex(vector["bytes"])
        start = b"FOEDUS\x01" + bytes([code]) + struct.pack("<I", len(header)) + header
        assert data.startswith(start), form
        assert vector["digest"] == _digest("adapter", data)
        payloads[form] = data[len(start) :]
    halves = struct.unpack("<68H", payloads["bf16"])
    assert [_float(half << 16) for half in halves] == pytest.approx(numbers, rel=2**-8)
    scales = [_float(half << 16) for half in struct.unpack("<2H", payloads["int8"][:4])]
    codes = struct.unpack("<68b", payloads["int8"][4:])
    assert [c * scales[i // 64] for i, c in enumerate(codes)] == pytest.approx(numbers, abs=0.6 * max(scales))
    (top,) = struct.unpack("<H", payloads["nf4"][:2])
    peaks = [_float((code + top - 255) << 19) for code in payloads["nf4"][2:4]]
    assert peaks == pytest.approx([34**3 / 1000, 33**3 / 1000], rel=1 / 32)
    levels = [code >> shift & 15 for code in payloads["nf4"][4:] for shift in (0, 4)]
    assert (levels[0], levels[34], levels[67]) == (0, 7, 15)
    (top,), (code, count) = struct.unpack("<H", payloads["sparse"][:2]), payloads["sparse"][2:4]
    places, signs = payloads["sparse"][4 : 4 + count], payloads["sparse"][4 + count :]
    step = _float((code + top - 255) << 19) / 8
    kept = [code >> shift & 15 for code in signs for shift in (0, 4)]
    found = {place: (-1 if c > 7 else 1) * (1 + c % 8) * step for place, c in zip(places, kept, strict=True)}
    assert list(found) == sorted(sorted(range(68), key=lambda i: -abs(numbers[i]))[:16])
    assert list(found.values()) == pytest.approx([numbers[place] for place in found], abs=0.6 * step)


def _float(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def test_a_commitment_is_computed_as_documented() -> None:
    assert documented()["commitment"]["digest"] == _digest("commitment", b"\x11" * 32 + b"\x22" * 32)


def test_a_manifest_is_hashed_as_documented() -> None:
    vector = documented()["manifest"]
    assert vector["digest"] == _digest("manifest", vector["json"].encode("ascii"))


def test_a_calibration_is_hashed_as_documented() -> None:
    vector = documented()["calibration"]
    assert vector["digest"] == _digest("calibration", vector["json"].encode("ascii"))


def test_a_receipt_is_hashed_as_documented() -> None:
    vector = documented()["answer_receipt"]
    assert vector["digest"] == _digest("answer-receipt", vector["json"].encode("ascii"))
    found = json.loads(vector["json"])
    assert found["request"] == _digest("request", b'{"model":"run"}')
    assert found["answer"] == _digest("answer", b'{"content":"None."}')


def test_a_merkle_root_is_computed_as_documented() -> None:
    one, two, three = (keccak(keccak(bytes([value]) * 32)) for value in (0x11, 0x22, 0x33))
    pair = keccak(min(one, two) + max(one, two))
    assert documented()["merkle"]["root"] == "0x" + keccak(min(pair, three) + max(pair, three)).hex()


def test_an_artifact_is_sealed_as_documented() -> None:
    vector = documented()["sealed"]
    digest = bytes.fromhex(vector["digest"][2:])
    name = hmac.digest(bytes.fromhex(vector["salt"]), b"foedus/block/v1\0" + digest, "sha256").hex()
    assert vector["name"] == f"blocks/{name[:2]}/{name[2:]}"
    label, key = b"foedus/sealed/v1\0" + vector["name"].encode(), bytes.fromhex(vector["key"])
    plain = AESGCM(key).decrypt(bytes(12), bytes.fromhex(vector["sealed"]), label)
    assert plain.hex() == documented()["adapter"]["bytes"]
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    wide = _hkdf(key, b"foedus/ephemeral/v1\0" + label, 48)
    secret = (1 + int.from_bytes(wide, "big") % (order - 1)).to_bytes(32, "big")
    ephemeral = Point.from_secret(secret).format()
    wraps = {}
    for reader in vector["readers"]:
        public = bytes.fromhex(reader[2:])
        shared = hashlib.sha256(Point(public).multiply(secret).format()).digest()
        wrapping = _hkdf(shared, b"foedus/wrap/v1\0" + label + ephemeral + public, 32)
        wraps[keys.address_of(reader)] = AESGCM(wrapping).encrypt(bytes(12), key, None).hex()
    assert json.loads(vector["keys"]) == {"ephemeral": "0x" + ephemeral.hex(), "wraps": wraps}


def _hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, by hand."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    block, expanded = b"", b""
    for counter in range(1, 3):
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        expanded += block
    return expanded[:length]


def test_seeds_are_hashed_as_documented() -> None:
    vector = documented()["seeds"]
    ticket = _seed("7", vector["organisation"].lower(), "1", "ticket")
    assert vector["shared"] == _seed("7", "shared-a").hex()
    assert vector["local"] == _seed("7", vector["organisation"].lower(), "1").hex()
    assert vector["ticket"] == int.from_bytes(ticket[:8], "big") / 2**64


def _digest(noun: str, data: bytes) -> str:
    return "0x" + hashlib.sha256(f"foedus/{noun}/v1\0".encode() + data).hexdigest()


def _seed(*parts: str) -> bytes:
    return hashlib.sha256(b"foedus/seed/v1\0" + "\0".join(parts).encode()).digest()


if __name__ == "__main__":
    text = json.dumps(computed(), indent=2) + "\n"
    PAGE.write_text(_BLOCK.sub(lambda match: match[1] + text + match[3], PAGE.read_text("utf-8")), "utf-8")
