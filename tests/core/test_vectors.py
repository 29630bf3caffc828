"""The vectors of tests/vectors, by the project and by a second reader.

`run.json` is a whole small run: genesis, registrations, records, salts, commitments and artifacts. The second reader
follows docs/reference/formats.md with hashlib, struct, json, Keccak and secp256k1 alone; it shares no line with the
project.
`refused.json` holds bytes that every implementation must refuse.

`python -m tests.core.test_vectors` writes them anew, which is right only together with a new version tag.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from eth_hash.auto import keccak
from eth_keys import KeyAPI

from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, weights
from core.canonical import ZERO_DIGEST, Digest, from_json, to_json
from core.errors import FormatError
from core.genesis import Genesis
from core.rounds import Admitted, Rejection, RoundRecord, Salts, commit_to
from core.signed import Signed
from core.update import Registration, verified_registration
from tests import federation as f
from tests.core.test_adapter import VARIANTS

FOLDER = Path(__file__).parents[1] / "vectors"
NAMES = ("medical", "coding")
CHALLENGE = f.other("challenge")


@cache
def vectors(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


# --- by the project ------------------------------------------------------------------------------------------------


def computed() -> dict[str, Any]:
    """Both files, by the project."""
    genesis = f.genesis(NAMES)
    registrations = [f.registration(o, CHALLENGE, f.key(o.name), f.CHAIN) for o in genesis.organisations]
    rounds = list(_rounds(genesis))
    states = [RULES["frozen-a"].initial(f.fresh()), *(state for *_, state in rounds)]
    updates = [f.update_of(genesis, name, number) for name in NAMES for number in (1, 2)]
    run = {
        "genesis": to_json(genesis.to_dict()).decode(),
        "genesis_digest": genesis.digest,
        "challenge": CHALLENGE,
        "registrations": [to_json(registration.to_dict()).decode() for registration in registrations],
        "rounds": [entry for entry, _ in rounds],
        "artifacts": {state.digest: state.to_bytes().hex() for state in (*states, *updates)},
        "initial": states[0].digest,
    }
    variants = {name: make() for name, make in VARIANTS.items()}
    refused = {"adapter": {name: data.hex() for name, data in variants.items() if len(data) < 1000}, "json": _JSON}
    return {"run": run, "refused": refused}


_JSON = {
    "keys out of order": b'{"b":1,"a":2}'.hex(),
    "white space": b'{"a": 1}'.hex(),
    "a line feed at the end": b'{"a":1}\n'.hex(),
    "a key twice": b'{"a":1,"a":1}'.hex(),
    "a character escaped that is not to be": b'{"a":"\\u00fc"}'.hex(),
    "UTF-16": '{"a":1}'.encode("utf-16").hex(),
    "an integer that no double is": b"9007199254740993".hex(),
    "a capital in an escape": b'"\\u00FC"'.hex(),
    "an escape that is not needed": b'"\\/"'.hex(),
    "a number with an exponent": b"1e3".hex(),
    "a number with a trailing zero": b"1.50".hex(),
    "NaN": b"NaN".hex(),
    "infinity": b"Infinity".hex(),
    "33 levels": (b"[" * 33 + b"]" * 33).hex(),
}


def _rounds(genesis: Genesis) -> Iterator[tuple[dict[str, Any], AdapterState]]:
    """Two rounds: both organisations in the first, one in the second."""
    state, parent, head = RULES["frozen-a"].initial(f.fresh()), genesis.digest, ZERO_DIGEST
    for number, names in ((1, NAMES), (2, NAMES[:1])):
        shares = weights({f.address(name): f.EXAMPLES[name] for name in names}, 1.0)
        signed = {
            f.address(name): f.signed(
                genesis,
                name,
                round=number,
                parent=parent,
                update=f.update_of(genesis, name, number).digest,
                nonce=f.other(f"{name} {number}"),
            )
            for name in names
        }
        by_address = {f.address(name): f.update_of(genesis, name, number) for name in names}
        state, _ = RULES["frozen-a"].aggregate(state, [WeightedUpdate(a, p, by_address[a]) for a, p in shares.items()])
        record = RoundRecord(
            genesis=genesis.digest,
            lane=0,
            generation=0,
            round=number,
            attempt=1,
            parent=parent,
            previous=parent,
            rule="frozen-a",
            admitted=tuple(Admitted(signed[a], p) for a, p in shares.items()),
            rejected=tuple(
                Rejection(f.address(n), "no-reply", "nothing came within 60 s") for n in NAMES if n not in names
            ),
            aggregate=state.digest,
        )
        salts = Salts(f"{number:02x}" * 32, {a: f"{number}{i}" * 32 for i, a in enumerate(shares)})
        committed = commit_to(record, salts, head)
        parent, head = record.digest, committed.aggregate
        yield (
            {
                "record": to_json(record.sign(f.COORDINATOR, genesis.chain).to_dict()).decode(),
                "digest": record.digest,
                "salts": to_json(salts.to_dict()).decode(),
                "commitment": {
                    "parent": committed.parent,
                    "updates_root": committed.updates_root,
                    "aggregate": committed.aggregate,
                    "count": committed.count,
                },
            },
            state,
        )


@pytest.mark.parametrize("name", ["run", "refused"])
def test_the_project_computes_every_vector(name: str) -> None:
    assert computed()[name] == vectors(name)


def test_the_project_reads_the_run() -> None:
    run = vectors("run")
    genesis = Genesis.from_dict(from_json(run["genesis"].encode()))
    assert genesis.digest == run["genesis_digest"]
    for text in run["registrations"]:
        signed = Signed.parse(Registration, from_json(text.encode()))
        assert verified_registration(signed, genesis.chain, f.asked(run["challenge"]))
    for entry in run["rounds"]:
        record = Signed.parse(RoundRecord, from_json(entry["record"].encode())).verified(genesis)
        assert record.digest == entry["digest"]
        assert all(a.signed.verified(genesis) for a in record.admitted)
    for name, data in run["artifacts"].items():
        assert AdapterState.from_bytes(bytes.fromhex(data)).digest == name


@pytest.mark.parametrize("what", vectors("refused")["adapter"])
def test_the_project_refuses_an_adapter_with(what: str) -> None:
    with pytest.raises(FormatError):
        AdapterState.from_bytes(bytes.fromhex(vectors("refused")["adapter"][what]))


@pytest.mark.parametrize("what", vectors("refused")["json"])
def test_the_project_refuses_json_with(what: str) -> None:
    with pytest.raises(FormatError):
        from_json(bytes.fromhex(vectors("refused")["json"][what]))


# --- by a second reader --------------------------------------------------------------------------------------------

STRUCTS = {
    "Registration": "string name,address organisation,uint64 examples,bool derived,address coordinator,string run,"
    "bytes32 challenge,string nodeKey,bytes32 nonce,string product,uint32 formats",
    "Update": "bytes32 genesis,uint32 lane,uint32 generation,uint32 round,address organisation,bytes32 parent,"
    "bytes32 update,string wire,uint64 examples,uint64 tokens,uint32 steps,uint32 rank,string epsilon,string metrics,"
    "bytes32 nonce",
    "Round": "bytes32 genesis,uint32 lane,uint32 generation,uint32 round,bytes32 record",
}


def sha(noun: str, data: bytes) -> str:
    return "0x" + hashlib.sha256(b"foedus/" + noun.encode() + b"/v1\0" + data).hexdigest()


def plain(value: Any) -> bytes:
    """RFC 8785, for the numbers that occur here: a double without fraction is written without a point."""
    return json.dumps(whole(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def word(kind: str, value: Any) -> bytes:
    """One 32-byte word of an EIP-712 struct."""
    if kind == "string":
        return keccak(value.encode())
    if kind in ("address", "bytes32"):
        return bytes.fromhex(value[2:]).rjust(32, b"\0")
    return int(value).to_bytes(32, "big")


def signer_of(genesis: dict[str, Any], struct_name: str, message: dict[str, Any], signature: str) -> str:
    fields = [field.split(" ") for field in STRUCTS[struct_name].split(",")]
    type_hash = keccak(f"{struct_name}({STRUCTS[struct_name]})".encode())
    body = keccak(type_hash + b"".join(word(kind, message[name]) for kind, name in fields))
    domain = keccak(
        keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        + keccak(b"Foedus")
        + keccak(b"1")
        + word("uint256", genesis["chain"]["chain_id"])
        + word("address", genesis["chain"]["contract"])
    )
    data = bytes.fromhex(signature[2:])
    recovered = (
        KeyAPI()
        .Signature(data[:64] + bytes([data[64] - 27]))
        .recover_public_key_from_msg_hash(keccak(b"\x19\x01" + domain + body))
    )
    return str(recovered.to_checksum_address())


def tensors(data: bytes) -> dict[str, list[float]]:
    """The numbers of a safetensors file of float32."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return {
        name: list(struct.unpack(f"<{(end - start) // 4}f", data[8 + length + start : 8 + length + end]))
        for name, (start, end) in ((name, entry["data_offsets"]) for name, entry in header.items())
    }


def as_float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@cache
def genesis_() -> dict[str, Any]:
    return dict(json.loads(vectors("run")["genesis"]))


def records() -> list[dict[str, Any]]:
    return [json.loads(entry["record"]) for entry in vectors("run")["rounds"]]


def test_a_second_reader_finds_every_digest() -> None:
    run = vectors("run")
    genesis, content = genesis_(), sha("genesis-content", run["genesis"].encode())
    header = {"chain": genesis["chain"], "content": content, "coordinator": genesis["coordinator"]}
    canonical = json.dumps(header, separators=(",", ":"), sort_keys=True)
    assert sha("genesis", canonical.encode()) == run["genesis_digest"]
    for entry, signed in zip(run["rounds"], records(), strict=True):
        assert sha("round", plain(signed["value"])) == entry["digest"]
    for name, data in run["artifacts"].items():
        assert sha("adapter", bytes.fromhex(data)) == name


def test_a_second_reader_follows_the_parents_back_to_the_genesis() -> None:
    parent = vectors("run")["genesis_digest"]
    for entry, signed in zip(vectors("run")["rounds"], records(), strict=True):
        assert signed["value"]["parent"] == parent
        assert {a["signed"]["value"]["parent"] for a in signed["value"]["admitted"]} == {parent}
        parent = entry["digest"]


def test_a_second_reader_recovers_every_signer() -> None:
    genesis = genesis_()
    for text in vectors("run")["registrations"]:
        signed = json.loads(text)
        registration = signed["value"]
        member = registration["organisation"]
        message = member | registration | {"organisation": member["address"], "nodeKey": registration["node_key"]}
        (signature,) = signed["signatures"]
        assert signer_of(genesis, "Registration", message, signature) == member["address"]
    for entry, signed in zip(vectors("run")["rounds"], records(), strict=True):
        message = signed["value"] | {"record": entry["digest"]}
        (signature,) = signed["signatures"]
        assert signer_of(genesis, "Round", message, signature) == genesis["coordinator"]
        for admitted in signed["value"]["admitted"]:
            manifest = admitted["signed"]["value"]
            texts = {name: plain(manifest[name]).decode() for name in ("metrics", "epsilon")}
            (signature,) = admitted["signed"]["signatures"]
            assert (
                signer_of(genesis, "Update", manifest | manifest["bid"] | texts, signature) == manifest["organisation"]
            )


def test_a_second_reader_computes_every_weight_and_aggregate() -> None:
    artifacts = {name: bytes.fromhex(data) for name, data in vectors("run")["artifacts"].items()}
    examples = {o["address"]: o["examples"] for o in genesis_()["organisations"]}
    state = tensors(artifacts[vectors("run")["initial"]])
    for signed in records():
        admitted = signed["value"]["admitted"]
        order = [int(a["signed"]["value"]["organisation"], 16) for a in admitted]
        assert order == sorted(order)
        total = sum(examples[a["signed"]["value"]["organisation"]] for a in admitted)
        for name in state:
            sums = list(state[name])
            for a in admitted:
                assert a["weight"] == examples[a["signed"]["value"]["organisation"]] / total
                delta = tensors(artifacts[a["signed"]["value"]["update"]])[name]
                sums = [s + a["weight"] * d for s, d in zip(sums, delta, strict=True)]
            state[name] = [as_float32(s) for s in sums]
        assert state == tensors(artifacts[signed["value"]["aggregate"]])


def test_a_second_reader_computes_what_stands_on_the_chain() -> None:
    def committed(salt: str, value: str) -> bytes:
        return bytes.fromhex(sha("commitment", bytes.fromhex(salt) + bytes.fromhex(value[2:]))[2:])

    parent = "0x" + "00" * 32
    for entry, signed in zip(vectors("run")["rounds"], records(), strict=True):
        salts, admitted = json.loads(entry["salts"]), signed["value"]["admitted"]
        nodes = [
            keccak(
                keccak(
                    committed(
                        salts["updates"][a["signed"]["value"]["organisation"]],
                        sha("manifest", plain(a["signed"]["value"])),
                    )
                )
            )
            for a in admitted
        ]
        root = nodes[0] if len(nodes) == 1 else keccak(min(nodes) + max(nodes))
        both = (sha("round", plain(signed["value"])), signed["value"]["aggregate"])
        outcome = sha("outcome", b"".join(bytes.fromhex(digest[2:]) for digest in both))
        aggregate = "0x" + committed(salts["aggregate"], outcome).hex()
        assert entry["commitment"] == {
            "parent": parent,
            "updates_root": "0x" + root.hex(),
            "aggregate": aggregate,
            "count": len(admitted),
        }
        parent = aggregate


def test_the_vectors_name_no_digest_that_is_not_there() -> None:
    artifacts = vectors("run")["artifacts"]
    for signed in records():
        wanted: list[Digest] = [
            signed["value"]["aggregate"],
            *(a["signed"]["value"]["update"] for a in signed["value"]["admitted"]),
        ]
        assert set(wanted) <= set(artifacts)


if __name__ == "__main__":
    for name_, content in computed().items():
        (FOLDER / f"{name_}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
