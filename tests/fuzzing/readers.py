"""Every reader of foreign bytes, each with good bytes to begin from; what is signed is verified, too."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from agents.table import Action, Learning, QTable
from chain.devnet.rpc import INTERNAL_ERROR, JsonRpc
from chain.joining import JoinKit, JoinRequest
from chain.membership import MembershipRequest
from chain.participation import ParticipationProof
from console.web.chat_request import ChatRequest
from core.adapter import AdapterState
from core.answers import checked_bundle, receipt_bundle
from core.calibration import Calibration, verified_calibration
from core.canonical import digest, from_json, parse_json, to_json
from core.composition import Composition
from core.compression import FORMS
from core.config import RunConfig
from core.erasures import Attestation, ErasureRequest, OpenedRequest, Receipt
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.keys import derive
from core.membership import Admission, Leave, MembershipRecord, Proposal
from core.messages import queries, training
from core.messages.queries import (
    AdmissionQuery,
    Bind,
    Bound,
    ConsentQuery,
    Deletion,
    OfferQuery,
    RecordsAnswer,
    RevealQuery,
)
from core.messages.refusal import Cause, Refusal, Refused
from core.messages.training import Reply, Task
from core.privacy import PrivacyClaims
from core.pruned import Pruned
from core.ranges import CHOICES
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts, ShownRecord
from core.signed import Signed
from core.storage.readers import Readers
from core.storage.sealing import Wraps
from core.update import Bid, Offer, Organisation, Registration, UpdateManifest, verified_registration
from core.wire import Packed
from llm.files import read_records
from provenance.evidence import Evidence
from provenance.trace import TokenTrace
from server_app.admission import AdmissionContext, read_reply
from tests import federation as f
from tests.behaviours.runs import build
from tests.chain.test_joining import KIT, join_request
from tests.chain.test_participation import proof_of
from tests.core.test_calibration import SIGNED as CALIBRATION
from tests.erasures import TODAY, attestation, attested, signed_receipt
from tests.provenance.test_evidence import trace
from tests.unlearning.test_certificate import SIGNED as CERTIFICATE
from unlearning.certificate import read_certificate

GENESIS = f.genesis()
CHAT = {
    "model": "run", "messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}], "max_tokens": 3,
    "temperature": 0.5, "top_p": 0.5, "seed": 1, "stop": ["a"], "stream": True, "provenance": "gradient",
}  # fmt: skip
RECORD = f.record(GENESIS).sign(f.COORDINATOR, GENESIS.chain)
SIGNED = f.signed(GENESIS)
UPDATE = f.update_of(GENESIS, "medical")
CHALLENGE = f.other("challenge")
OFFER = Offer(GENESIS.digest, f.address("medical"), 0, 0, 1, Bid(3, 2)).sign(f.key("medical"), GENESIS.chain)
OPENED = OpenedRequest.of(f.key("medical"), GENESIS, "replay", (f.other("one"), f.other("two")), "a test", TODAY)
SHOWN = ShownRecord(RECORD, Salts.draw(RECORD.value))
TASK = Task(
    GENESIS, f.address("medical"), 0, 0, 2, (), RECORD, SHOWN.salts, Composition.of(f.fresh()), earlier=(SHOWN,)
)  # fmt: skip
NEWCOMER = derive(5, "newcomer")
PROPOSAL = Proposal(
    GENESIS.digest, 0, 1, RECORD.value.digest, GENESIS.lanes[0], (Organisation(NEWCOMER.address, "newcomer", 50, True),)
)  # fmt: skip
CHANGE = MembershipRecord(
    GENESIS.digest,
    PROPOSAL,
    tuple(
        Admission(GENESIS.digest, key.address, PROPOSAL.digest).sign(key, GENESIS.chain)
        for key in (NEWCOMER, *map(f.key, ("medical", "coding", "financial")))
    ),
    (Leave(GENESIS.digest, f.address("coding")).sign(f.key("coding"), GENESIS.chain),),
    "44" * 32,
).sign(f.COORDINATOR, GENESIS.chain)
CHANGED = GENESIS.amended([CHANGE])
ADMISSION = AdmissionContext(
    GENESIS,
    f.address("medical"),
    RoundKey(GENESIS.digest, 0, 0, 1),
    GENESIS.digest,
    UPDATE.shapes,
    frozenset(),
    PrivacyClaims(GENESIS),
)


class Reader(NamedTuple):
    """How foreign bytes are read, and what they are when they are good."""

    read: Callable[[bytes], Any]
    good: bytes


def noun(cls: Any, good: Any) -> Reader:
    """A noun's file: canonical JSON."""
    return Reader(lambda data: cls.from_dict(from_json(data)), to_json(good.to_dict()))


def signed(cls: Any, good: Signed[Any], verify: Callable[[Signed[Any]], Any]) -> Reader:
    """A signed noun's file, and its signature."""
    return Reader(lambda data: verify(Signed.parse(cls, from_json(data))), to_json(good.to_dict()))


def message(content: RecordDict, name: str, parse: Callable[[RecordDict], Any]) -> Reader:
    """The JSON of one record in a message; the rest of it is good."""

    def read(data: bytes) -> Any:
        return parse(RecordDict({**content, name: ConfigRecord({"json": data})}))

    return Reader(read, bytes(content.config_records[name]["json"]))  # type: ignore[arg-type] # it is JSON


def reply(parse: Callable[[RecordDict], Any], content: RecordDict, name: str) -> Reader:
    """The same as a reply to a coordinator, read as the round reads it."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    asked = Message(RecordDict(), 1, "train")
    return message(content, name, lambda got: read_reply(Message(got, reply_to=asked), parse, "nothing"))


def admitted(content: RecordDict) -> Any:
    """What a round does with a reply to a task."""
    return ADMISSION.admit(Reply.from_content(content))


def update(data: bytes) -> Any:
    """The bytes of an update within an honest reply, signed for as they are."""
    return ADMISSION.admit(Reply(f.signed(GENESIS, update=digest("adapter", data)), memoryview(data)))


def losses(data: bytes) -> Any:
    """An evaluation's reply, as far as JSON can say what a MetricRecord holds."""
    found = parse_json(data)
    numbers = {str(k): v for k, v in found.items() if type(v) in (int, float)} if isinstance(found, dict) else {}
    return training.losses_of(RecordDict({"losses": MetricRecord(numbers)}))


def readers(folder: Path, rpc: JsonRpc) -> dict[str, Reader]:
    """All of them; `folder` is for those that read files, `rpc` a chain that answers."""
    plain = b'{"a":[1,2.5,"x",null,{"b":true}]}'
    return {
        "JSON": Reader(parse_json, plain),
        "canonical JSON": Reader(from_json, plain),
        "adapter": Reader(AdapterState.from_bytes, UPDATE.to_bytes()),
        **compressed(),
        **chain_questions(rpc),
        **nouns(),
        **statements(),
        **files(folder),
        **questions(),
        **replies(),
    }


def compressed() -> dict[str, Reader]:
    """Updates in every form, by themselves and as a round reads them; what is read has one spelling."""

    def reread(data: bytes) -> None:
        packed = Packed(data)
        assert Packed.of(packed.state, packed.form).data == data

    def admit(wire: str, data: bytes) -> None:
        genesis = replace(GENESIS, wire=wire)
        context = replace(ADMISSION, genesis=genesis, key=replace(ADMISSION.key, genesis=genesis.digest))
        signed = f.signed(GENESIS, genesis=genesis.digest, update=digest("adapter", data), wire=wire)
        context.admit(Reply(signed, memoryview(data)))

    alone = {f"state in {form}": Reader(reread, bytes(Packed.of(UPDATE, form).data)) for form in FORMS}
    sent = {wire: Reader(partial(admit, wire), bytes(Packed.of(UPDATE, wire).data)) for wire in CHOICES["wire"]}
    task = replace(TASK, genesis=replace(GENESIS, wire="nf4")).to_content()

    def down(data: bytes) -> Any:
        arrays = ArrayRecord({"bytes": Array("uint8", (1,), "safetensors", data)})
        return Task.from_content(RecordDict({**task, "state": arrays}))

    alone["state of a task in nf4"] = Reader(down, bytes(task.array_records["state"]["bytes"].data))
    return alone | {f"reply in {wire}": reader for wire, reader in sent.items()}


def chain_questions(rpc: JsonRpc) -> dict[str, Reader]:
    """What anybody with its token asks a development chain; our own fault is an answer, which is none that counts."""
    address, word = "0x" + "11" * 20, "0x" + "11" * 32

    def answer(data: bytes) -> Any:
        answers = rpc.answer(parse_json(data))
        for one in answers if isinstance(answers, list) else [answers]:
            if one.get("error", {}).get("code") == INTERNAL_ERROR:
                raise AssertionError(one)

    asked: dict[str, list[Any]] = {
        "eth_getLogs": [{"fromBlock": "0x0", "address": address, "topics": [None, [word]]}],
        "eth_call": [{"to": address, "data": "0x1234", "gas": "0x10000", "value": "0x0", "from": address}, "latest"],
        "eth_getBlockByHash": [word, False],
        "eth_feeHistory": ["0x1", "latest", [50]],
        "eth_sendRawTransaction": ["0x02f8" + "11" * 100],
        "eth_getStorageAt": [address, "0x0", "latest"],
    }
    return {
        name: Reader(answer, to_json({"id": 1, "jsonrpc": "2.0", "method": name, "params": params}))
        for name, params in asked.items()
    }


def nouns() -> dict[str, Reader]:
    """What is stored, or lies within something else."""
    table = QTable(Learning())
    table.learn(0, Action.LOW, 0.5, None, 0.25)
    return {
        "genesis": noun(Genesis, GENESIS),
        "salts": noun(Salts, TASK.salts),
        "readers": noun(Readers, f.readers(GENESIS)),
        "pruned": noun(Pruned, Pruned((RECORD.value.aggregate,))),
        "wraps": noun(Wraps, Wraps.of(bytes(32), b"label", f.readers(GENESIS).of())),
        "request to erase": noun(ErasureRequest, attestation(GENESIS).request.value),
        "settings": Reader(lambda data: RunConfig.from_flat(mapping(data)), to_json(RunConfig().to_flat())),
        "Q-table": Reader(lambda data: QTable.from_data(mapping(data)), to_json(table.to_data())),
    }


def statements() -> dict[str, Reader]:
    """What is signed."""

    def verify(found: Signed[Any]) -> Any:
        return found.verified(GENESIS)

    registration, asked = f.registration(f.members()[0], CHALLENGE), f.asked(CHALLENGE)
    return {
        "registration": signed(Registration, registration, lambda s: verified_registration(s, f.CHAIN, asked)),
        "manifest": signed(UpdateManifest, SIGNED, verify),
        "record": signed(RoundRecord, RECORD, verify),
        "offer": signed(Offer, OFFER, verify),
        "change of members": signed(MembershipRecord, CHANGE, lambda s: GENESIS.amended([s])),
        "attestation": signed(Attestation, attested(GENESIS), verify),
        "receipt": signed(Receipt, signed_receipt(GENESIS, f.other("erasure"), f.key("coding")), verify),
        "calibration": signed(Calibration, CALIBRATION, lambda s: verified_calibration(s, GENESIS)),
        "generation": Reader(lambda data: Signed.parse(GenerationRecord, from_json(data)), to_json(RECORD.to_dict())),
        "certificate": Reader(lambda data: verify(read_certificate(data)), to_json(CERTIFICATE.to_dict())),
    }


def files(folder: Path) -> dict[str, Reader]:
    """What somebody hands over as a file."""
    federation = build(folder / "run", rounds=2, organisations=3)
    receipt = receipt_bundle(GENESIS, f.COORDINATOR, f.other("served"), f.other("trace"), {"a": 1}, {"content": "b"})
    proof, evidence = proof_of(federation, "coding"), Evidence.of(federation.run, trace(federation, "financial"))
    lines, signature = folder / "x.jsonl", CERTIFICATE.signatures[0]
    request = MembershipRequest(GENESIS.chain, f.address("coding"), f.other("node"), 1, 2**40, signature)

    def records(data: bytes) -> Any:
        lines.write_bytes(data)
        return read_records(lines)

    return {
        "chat": Reader(lambda data: ChatRequest.of(parse_json(data)), to_json(CHAT)),
        "receipt": Reader(lambda data: checked_bundle(parse_json(data)), to_json(receipt)),
        "evidence": Reader(lambda data: Evidence.from_bytes(data).verified(), evidence.to_bytes()),
        "trace": Reader(TokenTrace.from_bytes, evidence.trace.to_bytes()),
        "proof": Reader(lambda data: ParticipationProof.from_json(data).path, proof.to_json()),
        "request to erase, handed over": Reader(
            lambda data: OpenedRequest.from_dict(from_json(data)).verified(GENESIS), to_json(OPENED.to_dict())
        ),
        "kit": Reader(JoinKit.from_json, KIT.to_json()),
        "request to join": Reader(lambda data: JoinRequest.from_json(data).verified(KIT), join_request().to_json()),
        "membership request": Reader(MembershipRequest.from_json, request.to_json()),
        "data records": Reader(records, b'{"question":"Q?","answer":"A."}\n{"text":"x","label":1}\n' * 2),
    }


def questions() -> dict[str, Reader]:
    """What a coordinator sends."""
    deletion = Deletion(GENESIS, f.address("medical"), attested(GENESIS))
    reveal = RevealQuery(f.address("medical"), (f.registration(f.members()[0], CHALLENGE),), f.CHAIN)
    consent = ConsentQuery(f.address("medical"), GENESIS)
    admission = AdmissionQuery(f.address("medical"), CHANGED, CHANGE.value.proposal, ())
    offer = OfferQuery(GENESIS, f.address("medical"), 0, 1, 3, 12.5, {1: 0.25})

    def state(data: bytes) -> Any:
        arrays = ArrayRecord({"bytes": Array("uint8", (1,), "safetensors", data)})
        return Task.from_content(RecordDict({**TASK.to_content(), "state": arrays}))

    return {
        "query to bind": message(Bind(f.asked(CHALLENGE), f.CHAIN).to_content(), "bind", Bind.from_content),
        "query for an offer": message(offer.to_content(), "offer", OfferQuery.from_content),
        "query to reveal": message(reveal.to_content(), "reveal", RevealQuery.from_content),
        "query to consent": message(consent.to_content(), "consent", ConsentQuery.from_content),
        "query about newcomers": message(admission.to_content(), "admission", AdmissionQuery.from_content),
        "query to delete": message(deletion.to_content(), "delete", Deletion.from_content),
        "task": message(TASK.to_content(), "task", Task.from_content),
        "genesis of a task": message(TASK.to_content(), "genesis", Task.from_content),
        "state of a task": Reader(state, f.fresh().to_bytes()),
    }


def replies() -> dict[str, Reader]:
    """What an organisation sends."""
    known = RecordsAnswer((f.other("one"),), (f.other("two"),)).to_content()
    registrations = Bound((f.registration(f.members()[0], CHALLENGE),), 4).to_content()
    refusal = Refusal(Refused.OBJECTED, Cause.MESSAGE, "why").to_content()
    return {
        "registrations": message(registrations, "bound", Bound.from_content),
        "revealed": reply(queries.nonce_of, queries.revealed(f.other("nonce")), "revealed"),
        "agreed": reply(queries.admission_of, queries.agreed(CHANGE.value.admissions[0]), "agreed"),
        "offered": reply(queries.offer_of, queries.offered(OFFER), "offered"),
        "records known": reply(partial(RecordsAnswer.from_content, asked=2), known, "known"),
        "refusal": reply(admitted, refusal, "refusal"),
        "reply's manifest": reply(admitted, training.reply(SIGNED, UPDATE), "manifest"),
        "reply's update": Reader(update, UPDATE.to_bytes()),
        "losses": Reader(losses, b'{"base":2.5,"global":1.5}'),
    }


def mapping(data: bytes) -> dict[str, Any]:
    """An object in canonical JSON; raises FormatError for what is no object's, as its callers in the project do."""
    value = from_json(data)
    return value if isinstance(value, dict) else {"": value}
