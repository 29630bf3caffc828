"""What it costs the server to take in and sum 100 updates of 20 MB.

Every reply goes the way of a real one: parsed from the bytes of a Flower record, admitted, sealed for all members and
stored, dropped; then the round is aggregated from the store, where the sum (float64, two updates) and one unsealed
update are in memory. Memory is anonymous resident memory (RssAnon) above the start, sampled every few milliseconds;
time is compared with reading and hashing the same files in the same run.

    python -m benchmarks.aggregation [--updates 100] [--folder DIR]
"""

import argparse
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from benchmarks import report
from benchmarks.worlds import genesis_of
from core import keys, lora
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate
from core.canonical import Address, Digest, digest
from core.genesis import Genesis
from core.keys import Domain, Key
from core.messages import codec as wire
from core.storage.artifacts import SEALED, Artifacts
from core.storage.blobs import Folder
from core.storage.readers import Readers
from core.update import Bid, UpdateManifest
from server_app.admission import Expected, admit

_MODULES = {f"layers.{i}": (2048, 2048) for i in range(40)}
_RANK = 64
_SEED = 7
_MB = 1e6
T = TypeVar("T")
_CHAIN = Domain(1, keys.derive(_SEED, "contract").address)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = measure(Path(folder), options.updates)
    report.write("aggregation", figures, "python -m benchmarks.aggregation", _SEED)
    sys.stdout.write(report.table(("figure", "value"), figures.items()) + "\n")


def measure(folder: Path, updates: int) -> dict[str, float]:
    """All figures, in megabytes, seconds and ratios."""
    fresh = lora.fresh(lora.Layout.of(_MODULES, _RANK), b"benchmark")
    rule = RULES["frozen-a"]
    state = rule.initial(fresh)
    members = [keys.derive(_SEED, f"organisation {i}") for i in range(updates)]
    genesis = genesis_of(members, fresh)
    blobs, readers = Folder(folder), Readers(members[0].public, tuple(key.public for key in members))
    store = Artifacts(blobs, genesis.salt, readers, members[0])
    with ProcessPoolExecutor(1, get_context("spawn")) as clients:
        replies = [(key, clients.submit(_reply, genesis, key, folder).result()) for key in members]
    start = _anonymous()
    taken, peaks_in = zip(*(_take_in(genesis, key, path, store, start) for key, path in replies), strict=True)
    names = [digest for _, digest in taken]
    _, hashing = _timed(lambda: [digest("adapter", blobs.read(store.place(name) + SEALED)) for name in names])
    with _peak(_anonymous()) as peak_sum:
        weighted = (WeightedUpdate(o, 1 / updates, partial(store.open, name)) for o, name in taken)
        _, summing = _timed(lambda: store.put(rule.aggregate(state, weighted).state))
    size = state.nbytes / _MB
    return {
        "updates": updates,
        "update_mb": size,
        "peak_taking_in_updates": max(peaks_in) / size,
        "peak_aggregating_updates": peak_sum() / size,
        "read_and_hash_seconds": hashing,
        "aggregate_seconds": summing,
        "aggregate_to_read_and_hash": summing / hashing,
    }


def _take_in(
    genesis: Genesis, key: Key, reply: Path, store: Artifacts, start: float
) -> tuple[tuple[Address, Digest], float]:
    """Do with a reply what the server does, from the moment Flower has its bytes."""
    shapes = {f"{name}.lora_B": (outputs, _RANK) for name, (_, outputs) in _MODULES.items()}
    expected = Expected(genesis, key.address, 0, 0, 1, genesis.digest, shapes, frozenset())
    with _peak(start) as peak:
        content = _arrived(reply)
        signed, update = admit(wire.Reply.from_content(content), expected)
        taken = signed.value.organisation, store.put(update)
        wire.release(content)
    reply.unlink()
    return taken, peak()


def _reply(genesis: Genesis, key: Key, folder: Path) -> Path:
    """Make one organisation's reply in another process, and leave its bytes in a file."""
    rng = np.random.default_rng(int(key.address, 16))
    shapes = {f"{name}.lora_B": (outputs, _RANK) for name, (_, outputs) in _MODULES.items()}
    update = AdapterState({name: rng.standard_normal(shape, np.float32) * 1e-3 for name, shape in shapes.items()})
    manifest = UpdateManifest(
        genesis=genesis.digest, organisation=key.address, lane=0, generation=0, round=1, parent=genesis.digest,
        update=update.digest, examples=1, tokens=1, bid=Bid(1, _RANK), nonce=digest("nonce", key.secret),
    )  # fmt: skip
    content = wire.unsigned_reply(manifest, update)
    wire.attach_signature(content, manifest.sign(key, genesis.chain).signatures[0])
    path = folder / f"{key.address}.reply"
    array = content.array_records["update"]["bytes"]
    parts = array.data, content.config_records["manifest"]["json"], content.config_records["signature"]["hex"]
    path.write_bytes(pickle.dumps((array.dtype, array.shape, array.stype, *parts)))
    return path


def _arrived(path: Path) -> RecordDict:
    """The reply as Flower hands it over."""
    dtype, shape, stype, data, manifest, signature = pickle.loads(path.read_bytes())  # noqa: S301 - written by this benchmark
    return RecordDict(
        {
            "update": ArrayRecord({"bytes": Array(dtype, shape, stype, data)}),
            "manifest": ConfigRecord({"json": manifest}),
            "signature": ConfigRecord({"hex": signature}),
        }
    )


def _timed(action: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return action(), time.perf_counter() - started


@contextmanager
def _peak(start: float) -> Iterator[Callable[[], float]]:
    """The largest RssAnon while the block ran, in megabytes above `start`."""
    largest, done = [_anonymous() - start], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            largest[0] = max(largest[0], _anonymous() - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: largest[0]
    finally:
        done.set()
        thread.join()


def _anonymous() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("RssAnon"))
    return int(kilobytes) * 1024 / _MB


if __name__ == "__main__":
    main()
