"""What a hostile reply of 10 MB costs a coordinator, beyond what Flower needs to receive it.

    python -m benchmarks.replies

Each reply is received in a process of its own, as Flower does it (objects are inflated), and then read and admitted.
CPU is the process's own; memory is how far the peak of its anonymous pages rises above what was there before.
"""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from core.adapter import AdapterState
from core.canonical import digest
from core.messages.codec import json_record
from core.messages.queries import Bound
from core.messages.training import Reply, losses_of
from core.privacy import PrivacyClaims
from core.round_key import RoundKey
from server_app.admission import AdmissionContext, RejectedError, read_reply
from tests import federation as f

SIZE = 10 * 2**20
_FLOATS = SIZE // 4
_GENESIS = f.genesis()
_WANTED = {"model.lora_B": (_FLOATS // 8, 8)}
_ROUND = RoundKey(_GENESIS.digest, 0, 0, 1)
_CONTEXT = AdmissionContext(
    _GENESIS, f.address("medical"), _ROUND, _GENESIS.digest, _WANTED, frozenset(), PrivacyClaims(_GENESIS)
)
"""Of a model whose honest update has 10 MB."""

T = TypeVar("T")
Parse = Callable[[RecordDict], object]


def _replied(data: bytes, **claims: object) -> RecordDict:
    """A reply whose manifest is signed, and right but for `claims`."""
    values = {"update": digest("adapter", data), "lane": 0} | claims
    signed = f.manifest(_GENESIS, "medical", **values).sign(f.key("medical"), _GENESIS.chain)
    array = Array("uint8", (len(data),), "safetensors", data)
    return RecordDict({"manifest": json_record(signed.to_dict()), "update": ArrayRecord({"bytes": array})})


def _trained(value: float = 1e-4) -> bytes:
    array = np.full(_WANTED["model.lora_B"], 1e-4, np.float32)
    array.flat[-1] = value
    return AdapterState({"model.lora_B": array}).to_bytes()


def _header() -> bytes:
    """A safetensors file that is all header: very many empty tensors."""
    entries = ",".join(f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(180_000))
    text = f"{{{entries}}}".encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _json(name: str, start: bytes, repeated: bytes, end: bytes) -> RecordDict:
    return RecordDict({name: ConfigRecord({"json": start + repeated * (SIZE // len(repeated)) + end})})


REPLIES: Mapping[str, tuple[Callable[[], RecordDict], Parse]] = {
    "an update that is admitted": (lambda: _replied(_trained()), Reply.from_content),
    "an update with one NaN, its last": (lambda: _replied(_trained(np.nan)), Reply.from_content),
    "an update of another digest": (lambda: _replied(_trained(), update=f.other("else")), Reply.from_content),
    "a header of 180,000 tensors": (lambda: _replied(_header()), Reply.from_content),
    "a manifest of brackets": (lambda: _json("manifest", b'{"a":[', b"[],", b"[]]}"), Reply.from_content),
    "a manifest of digits": (lambda: _json("manifest", b'{"a":', b"9", b"}"), Reply.from_content),
    "a refusal of letters": (lambda: _json("refusal", b'{"reason":"', b"a", b'"}'), Reply.from_content),
    "registrations of brackets": (lambda: _json("bound", b'{"organisations":[', b"[],", b"[]]}"), Bound.from_content),
    "losses of many names": (
        lambda: RecordDict({"losses": MetricRecord({f"{i:x}" * 8: 1.0 for i in range(200_000)})}), losses_of,
    ),
}  # fmt: skip
"""Replies by what is odd about them: the content, and the function that reads it."""


def outcome(content: RecordDict, parse: Parse) -> str:
    """What becomes of a reply that has been received."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    try:
        read = read_reply(Message(content, 1, "train"), parse, "silence")
        if isinstance(read, Reply):
            _CONTEXT.admit(read)
    except RejectedError as error:
        return error.reason.value
    return "admitted"


@dataclass(frozen=True)
class Cost:
    """CPU seconds, and MiB of memory."""

    seconds: float
    mib: float

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s, {self.mib:.0f} MiB"


def cost_of(work: Callable[[], T]) -> tuple[Cost, T]:
    """What some work costs, and its result."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before, began = _memory("RssAnon"), time.process_time()
    result = work()
    seconds = time.process_time() - began
    return Cost(seconds, _memory("VmHWM") - _memory("RssFile") - _memory("RssShmem") - before), result


def measure(name: str) -> str:
    """A row of the table: a reply, what receiving and reading it cost, and what became of it."""
    make, parse = REPLIES[name]
    record = make()
    sent = {key: item.deflate() for key, item in get_all_nested_objects(record).items()}
    identity = record.object_id
    outcome(RecordDict(), parse)  # what is imported late is nobody's cost
    del record
    received, content = cost_of(lambda: cast(RecordDict, inflate_object_from_contents(identity, sent)))
    read, said = cost_of(lambda: outcome(content, parse))
    return f"| {name} | {received} | {read} | {said} |"


def _memory(kind: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(kind))) / 1024


def main() -> None:
    """Print a table of all replies, each measured in a process of its own."""
    if len(sys.argv) > 1:
        sys.stdout.write(measure(sys.argv[1]) + "\n")
        return
    sys.stdout.write("| reply | Flower receives it | it is read | outcome |\n|---|---|---|---|\n")
    sys.stdout.flush()
    for name in REPLIES:
        subprocess.run([sys.executable, "-m", "benchmarks.replies", name], check=True)


if __name__ == "__main__":
    main()
