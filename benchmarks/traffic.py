"""Bytes of a client round, up and down, against averaging A and B.

Both sides are measured as Flower sends them: every record of a message in its serialised form. The peer sends A and B
of the same rank, one float32 array a tensor, as Flower's LLM template does, and nothing that is signed; this side sends
B in the default form.

    python -m benchmarks.traffic
"""

import secrets
from dataclasses import replace

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import InflatableObject

from benchmarks import report
from benchmarks.genesis import make_genesis
from core import keys, lora
from core.adapter import AdapterState
from core.aggregation import RULES, weights
from core.canonical import Address, Digest
from core.composition import Composition
from core.config import RunConfig
from core.genesis import Genesis
from core.messages import training
from core.messages.training import Task
from core.rounds import Admitted, RoundRecord, Salts
from core.signed import Signed
from core.update import Bid, UpdateManifest
from core.wire import Packed
from llm.model import ModelSpec, load

RANK = 8
SEED = 7
ORGANISATIONS = ("coding", "financial", "mathematical", "medical")


def main() -> None:
    """Measure, print and write."""
    layout = lora.Layout.of(load(ModelSpec("foedus-tiny", "nf4", RANK, float(RANK))).modules, RANK)
    fresh = lora.fresh(layout, b"benchmark")
    # Flower sends equal arrays, such as those of an untrained B, only once: random ones stand for trained ones.
    rng = np.random.default_rng(SEED)
    trained = {name: rng.standard_normal(array.shape, np.float32) for name, array in fresh.arrays.items()}
    figures = measure(AdapterState(trained))
    report.write("traffic", figures, "python -m benchmarks.traffic", SEED)
    report.print_table(("figure", "value"), figures.items())


def measure(adapter: AdapterState) -> dict[str, float | str]:
    """Bytes of one organisation in one round, and ratios to the peer."""
    members = [keys.derive(SEED, name) for name in ORGANISATIONS]
    wire, state = RunConfig().wire, RULES["frozen-a"].initial(adapter)
    genesis, update = replace(make_genesis(members, adapter), wire=wire), Packed.of(state, wire)
    signed = [_manifest(genesis, key.address, update).sign(key, genesis.chain) for key in members]
    record = _record(genesis, signed, state).sign(members[0], genesis.chain)
    salts = Salts.draw(record.value)
    task = Task(genesis, members[1].address, 0, 0, 2, (), record, salts, Composition.of(state))
    reply = training.reply(signed[1], update)
    down, up, peer = _size(task.to_content()), _size(reply), _size(_template(adapter))
    return {
        "down_bytes": down,
        "up_bytes": up,
        "peer_bytes_each_way": peer,
        "down_to_peer": down / peer,
        "up_to_peer": up / peer,
        "wire": wire,
        "both_to_peer": (down + up) / (2 * peer),
    }


def _size(content: InflatableObject) -> int:
    """Bytes of a record and of all that it contains, as Flower serialises them."""
    children = (content.children or {}).values()
    return len(content.deflate()) + sum(_size(child) for child in children)


def _manifest(genesis: Genesis, organisation: Address, update: Packed) -> UpdateManifest:
    return UpdateManifest(
        genesis=genesis.digest, organisation=organisation, lane=0, generation=0, round=1, parent=genesis.digest,
        update=update.digest, examples=1000, tokens=50_000, bid=Bid(25, RANK),
        nonce=Digest("0x" + secrets.token_hex(32)), metrics={"loss": 2.3456789, "seconds": 30.123456},
    )  # fmt: skip


def _record(genesis: Genesis, signed: list[Signed[UpdateManifest]], state: AdapterState) -> RoundRecord:
    # Equal examples: the weights take as many bytes as any others.
    p = weights({s.value.organisation: 1 for s in signed}, 1.0)
    return RoundRecord(
        genesis=genesis.digest, lane=0, generation=0, round=1, attempt=1, parent=genesis.digest,
        previous=genesis.digest, rule="frozen-a",
        admitted=tuple(Admitted(s, p[s.value.organisation]) for s in signed), rejected=(), aggregate=state.digest,
    )  # fmt: skip


def _template(adapter: AdapterState) -> RecordDict:
    """A message of the peer, the same each way: A and B, and a few settings or metrics."""
    arrays = ArrayRecord({name: Array(array) for name, array in adapter.arrays.items()})
    config = ConfigRecord({"lr": 1e-4, "save_path": "results", "server-round": 1})
    return RecordDict({"arrays": arrays, "config": config, "metrics": MetricRecord({"train_loss": 2.0, "n": 1000})})


if __name__ == "__main__":
    main()
