"""Memory and time of the server to admit and aggregate 100 updates of 20 MB.

Every reply is handled as a real one: parsed from the bytes of a Flower record, admitted, sealed for all members,
stored and dropped. The round is then aggregated from the store; in memory are the sum (float64, two updates) and one
unsealed update. Memory is anonymous resident memory (RssAnon) above the start, sampled every few milliseconds. Reading
and hashing the same files takes turns with aggregating them: seconds are medians of some turns, and so is the ratio of
the two.

    python -m benchmarks.aggregation [--updates 100] [--folder DIR]
"""

import argparse
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from benchmarks import arguments, report
from benchmarks.genesis import make_genesis
from benchmarks.timing import wall_timed
from core import keys, lora
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate
from core.canonical import Address, Digest, digest
from core.genesis import Genesis
from core.keys import Key
from core.messages import codec, training
from core.messages.training import Reply
from core.privacy import PrivacyClaims
from core.round_key import RoundKey
from core.storage.artifacts import SEALED, Artifacts
from core.storage.blobs import Folder
from core.storage.readers import Readers
from core.update import Bid, UpdateManifest
from server_app.admission import AdmissionContext

MODULES = {f"layers.{i}": (2048, 2048) for i in range(40)}
RANK = 64
SHAPES = {f"{name}.lora_B": (outputs, RANK) for name, (_, outputs) in MODULES.items()}
SEED = 7
TURNS = 5
MB = 1e6


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=arguments.count(), default=100)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = measure(Path(folder), options.updates)
    report.write("aggregation", figures, "python -m benchmarks.aggregation", SEED)
    report.print_table(("figure", "value"), figures.items())


def measure(folder: Path, updates: int) -> dict[str, float]:
    """All figures; memory in sizes of one update, times in seconds."""
    fresh = lora.fresh(lora.Layout.of(MODULES, RANK), b"benchmark")
    rule = RULES["frozen-a"]
    state = rule.initial(fresh)
    members = [keys.derive(SEED, f"organisation {i}") for i in range(updates)]
    genesis = make_genesis(members, fresh)
    blobs, readers = Folder(folder), Readers(members[0].public, tuple(key.public for key in members))
    store = Artifacts(blobs, genesis.salt, readers, members[0])
    # Replies are made in another process: the memory that making them takes is the clients'.
    with ProcessPoolExecutor(1, get_context("spawn")) as clients:
        replies = [(key, clients.submit(_reply, genesis, key, folder).result()) for key in members]
    start = _anonymous()
    admitted, peaks = zip(*(_admitted(genesis, key, path, store, start) for key, path in replies), strict=True)
    names = [name for _, name in admitted]
    weighted = [WeightedUpdate(o, 1 / updates, partial(store.open, name)) for o, name in admitted]

    def read_and_hash() -> None:
        for name in names:
            digest("adapter", blobs.read(store.place(name) + SEALED))

    with _peak(_anonymous()) as peak_sum:
        store.put(rule.aggregate(state, weighted).state)
    turns = [
        (wall_timed(read_and_hash)[1], wall_timed(lambda: rule.aggregate(state, weighted))[1]) for _ in range(TURNS)
    ]
    hashing, summing = map(median, zip(*turns, strict=True))
    size = state.nbytes / MB
    return {
        "updates": updates,
        "update_mb": size,
        "peak_admitting_updates": max(peaks) / size,
        "peak_aggregating_updates": peak_sum() / size,
        "read_and_hash_seconds": hashing,
        "aggregate_seconds": summing,
        "aggregate_to_read_and_hash": median(aggregated / read for read, aggregated in turns),
    }


def _admitted(
    genesis: Genesis, key: Key, reply: Path, store: Artifacts, start: float
) -> tuple[tuple[Address, Digest], float]:
    """Admit a reply and store its update, from the bytes on; returns whose it is, its digest, and the peak in MB."""
    round_key = RoundKey(genesis.digest, 0, 0, 1)
    context = AdmissionContext(
        genesis, key.address, round_key, genesis.digest, SHAPES, frozenset(), PrivacyClaims(genesis)
    )
    with _peak(start) as peak:
        dtype, shape, stype, data, signed_manifest = pickle.loads(reply.read_bytes())  # noqa: S301 - our own file
        content = RecordDict(
            {
                "update": ArrayRecord({"bytes": Array(dtype, shape, stype, data)}),
                "manifest": ConfigRecord({"json": signed_manifest}),
            }
        )
        signed, update = context.admit(Reply.from_content(content))
        admitted = signed.value.organisation, store.put(update)
        codec.release(content)
    reply.unlink()
    return admitted, peak()


def _reply(genesis: Genesis, key: Key, folder: Path) -> Path:
    """Write the bytes of one organisation's reply, as Flower would deliver them, to a file."""
    rng = np.random.default_rng(int(key.address, 16))
    update = AdapterState({name: rng.standard_normal(shape, np.float32) * 1e-3 for name, shape in SHAPES.items()})
    manifest = UpdateManifest(
        genesis=genesis.digest, organisation=key.address, lane=0, generation=0, round=1, parent=genesis.digest,
        update=update.digest, examples=1, tokens=1, bid=Bid(1, RANK), nonce=digest("nonce", key.secret),
    )  # fmt: skip
    content = training.reply(manifest.sign(key, genesis.chain), update)
    path = folder / f"{key.address}.reply"
    array = content.array_records["update"]["bytes"]
    signed = content.config_records["manifest"]["json"]
    path.write_bytes(pickle.dumps((array.dtype, array.shape, array.stype, array.data, signed)))
    return path


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
    # Anonymous only: mapped files, such as those of the store, can be dropped at any time.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("RssAnon"))
    return int(kilobytes) * 1024 / MB


if __name__ == "__main__":
    main()
