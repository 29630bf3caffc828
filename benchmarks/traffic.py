"""Bytes of one client-round, up and down, against averaging A and B apart.

Both sides are measured as Flower sends them: every record of a message in its serialised form. The peer sends the
same rank's A and B as one float32 array a tensor, as Flower's LLM template does, and nothing that is signed.

    python -m benchmarks.traffic
"""

import secrets
import sys

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import InflatableObject

from benchmarks import report
from benchmarks.worlds import genesis_of
from core import keys, lora
from core.adapter import AdapterState
from core.aggregation import RULES, weights
from core.canonical import Address, Digest
from core.composition import Composition
from core.genesis import Genesis
from core.messages import codec as wire
from core.rounds import Admitted, RoundRecord, Salts
from core.signed import Signed
from core.update import Bid, UpdateManifest
from llm.model import ModelSpec, load

_RANK = 8
_SEED = 7
_ORGANISATIONS = ("coding", "financial", "mathematical", "medical")


def main() -> None:
    """Measure, print and write."""
    layout = lora.Layout.of(load(ModelSpec("foedus-tiny", "nf4", _RANK, float(_RANK))).modules, _RANK)
    figures = measure(_trained(lora.fresh(layout, b"benchmark")))
    report.write("traffic", figures, "python -m benchmarks.traffic", _SEED)
    sys.stdout.write(report.table(("figure", "value"), figures.items()) + "\n")


def measure(fresh: AdapterState) -> dict[str, float]:
    """Bytes of one organisation in one round, and ratios to the peer."""
    members = [keys.derive(_SEED, name) for name in _ORGANISATIONS]
    genesis, state = genesis_of(members, fresh), RULES["frozen-a"].initial(fresh)
    signed = [_manifest(genesis, key.address, state).sign(key, genesis.chain) for key in members]
    record = _record(genesis, signed, state).sign(members[0], genesis.chain)
    salts = Salts.draw(record.value)
    down = _size(wire.Task(genesis, members[1].address, 0, 0, 2, (), record, salts, Composition.of(state)).to_content())
    up = _size(_reply(signed[1], state))
    peer = _size(_template(fresh))
    return {
        "down_bytes": down,
        "up_bytes": up,
        "peer_bytes_each_way": peer,
        "down_to_peer": down / peer,
        "up_to_peer": up / peer,
        "both_to_peer": (down + up) / (2 * peer),
    }


def _trained(fresh: AdapterState) -> AdapterState:
    """Random factors: Flower sends equal arrays, such as an untrained B, only once."""
    rng = np.random.default_rng(_SEED)
    return AdapterState({name: rng.standard_normal(array.shape, np.float32) for name, array in fresh.arrays.items()})


def _size(content: InflatableObject) -> int:
    """Bytes of a record and of all that it contains, as Flower serialises them."""
    children = (content.children or {}).values()
    return len(content.deflate()) + sum(_size(child) for child in children)


def _manifest(genesis: Genesis, organisation: Address, update: AdapterState) -> UpdateManifest:
    return UpdateManifest(
        genesis=genesis.digest, organisation=organisation, lane=0, generation=0, round=1, parent=genesis.digest,
        update=update.digest, examples=1000, tokens=50_000, bid=Bid(25, _RANK),
        nonce=Digest("0x" + secrets.token_hex(32)), metrics={"loss": 2.3456789, "seconds": 30.123456},
    )  # fmt: skip


def _record(genesis: Genesis, signed: list[Signed[UpdateManifest]], state: AdapterState) -> RoundRecord:
    p = weights({s.value.organisation: 1 for s in signed})
    return RoundRecord(
        genesis=genesis.digest, lane=0, generation=0, round=1, attempt=1, parent=genesis.digest,
        previous=genesis.digest, rule="frozen-a",
        admitted=tuple(Admitted(s, p[s.value.organisation]) for s in signed), rejected=(), aggregate=state.digest,
    )  # fmt: skip


def _reply(signed: Signed[UpdateManifest], update: AdapterState) -> RecordDict:
    content = wire.unsigned_reply(signed.value, update)
    wire.attach_signature(content, signed.signatures[0])
    return content


def _template(fresh: AdapterState) -> RecordDict:
    """What the peer sends each way: A and B, a few settings or metrics."""
    arrays = ArrayRecord({name: Array(array) for name, array in fresh.arrays.items()})
    config = ConfigRecord({"lr": 1e-4, "save_path": "results", "server-round": 1})
    return RecordDict({"arrays": arrays, "config": config, "metrics": MetricRecord({"train_loss": 2.0, "n": 1000})})


if __name__ == "__main__":
    main()
