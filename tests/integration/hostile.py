"""What a hostile organisation sends; takes the place of client_app/signing.py in a packed app.

The honest module lies beside it as honest_signing. An organisation attacks by its name.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from flwr.app import RecordDict

from client_app import honest_signing
from client_app.hosting import Host, Node
from client_app.witness import Witness
from core.adapter import AdapterState
from core.canonical import digest
from core.keys import derive
from core.messages.training import Task
from core.update import UpdateManifest
from core.wire import Packed, Travelling

signed = honest_signing.signed
"""What else the honest module has, as it is."""
Attack = Callable[[UpdateManifest, Packed], tuple[UpdateManifest, Travelling]]


def signed_reply(
    manifest: UpdateManifest, update: Packed, host: Host, witness: Witness, task: Task, node: Node
) -> RecordDict:
    """Attack, then sign as an honest organisation does; the witness expects either of the two manifests."""
    honest = honest_signing.signed_reply(manifest, update, host, witness, task, node)
    if not (attack := ATTACKS.get(host.data.name)):
        return honest
    attacker = replace(host, key=derive(99, "stranger")) if host.data.name == "forge" else host
    return honest_signing.signed_reply(*attack(manifest, update), attacker, witness, task, node)


def _with(manifest: UpdateManifest, update: AdapterState) -> tuple[UpdateManifest, Travelling]:
    return replace(manifest, update=update.digest), update


def _poison(manifest: UpdateManifest, update: Packed) -> tuple[UpdateManifest, Travelling]:
    return _with(manifest, AdapterState({name: np.full_like(a, np.nan) for name, a in update.state.arrays.items()}))


def _reshape(manifest: UpdateManifest, update: Packed) -> tuple[UpdateManifest, Travelling]:
    return _with(manifest, AdapterState({name: np.ones(1, np.float32) for name in update.state}))


def _inflate(manifest: UpdateManifest, update: Packed) -> tuple[UpdateManifest, Travelling]:
    return replace(manifest, examples=10**9), update


def _replay(manifest: UpdateManifest, update: Packed) -> tuple[UpdateManifest, Travelling]:
    return replace(manifest, nonce=digest("nonce", b"one for every round")), update


def _nothing(manifest: UpdateManifest, update: Packed) -> tuple[UpdateManifest, Travelling]:
    return manifest, update


ATTACKS: dict[str, Attack] = {
    "forge": _nothing,
    "inflate": _inflate,
    "poison": _poison,
    "replay": _replay,
    "reshape": _reshape,
}
