"""What a hostile organisation sends; takes the place of client_app/signing.py in a packed app.

The honest module lies beside it as honest_signing. An organisation attacks by its name.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from client_app import honest_signing
from client_app.hosting import node_of
from core.adapter import AdapterState
from core.canonical import digest
from core.keys import derive
from core.messages import codec as wire
from core.update import UpdateManifest

Attack = Callable[[UpdateManifest, AdapterState], tuple[UpdateManifest, AdapterState]]


def sign_update(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Sign as an honest organisation does, then attack."""
    task = wire.Task.from_content(message.content)
    host = node_of(context).host(task.organisation)
    reply = honest_signing.sign_update(message, context, call_next)
    if attack := ATTACKS.get(host.data.name):
        key = derive(99, "stranger") if host.data.name == "forge" else host.key
        manifest, update = attack(wire.manifest_of(reply.content), wire.unpack(reply.content, "update"))
        signed = manifest.sign(key, task.genesis.chain)
        node_of(context).oversight.witness(task).sent(signed)
        reply.content = wire.unsigned_reply(manifest, update)
        wire.attach_signature(reply.content, signed.signatures[0])
    return reply


def _with(manifest: UpdateManifest, update: AdapterState) -> tuple[UpdateManifest, AdapterState]:
    return replace(manifest, update=update.digest), update


def _poison(manifest: UpdateManifest, update: AdapterState) -> tuple[UpdateManifest, AdapterState]:
    return _with(manifest, AdapterState({name: np.full_like(a, np.nan) for name, a in update.arrays.items()}))


def _reshape(manifest: UpdateManifest, update: AdapterState) -> tuple[UpdateManifest, AdapterState]:
    return _with(manifest, AdapterState({name: np.ones(1, np.float32) for name in update}))


def _inflate(manifest: UpdateManifest, update: AdapterState) -> tuple[UpdateManifest, AdapterState]:
    return replace(manifest, examples=10**9), update


def _replay(manifest: UpdateManifest, update: AdapterState) -> tuple[UpdateManifest, AdapterState]:
    return replace(manifest, nonce=digest("nonce", b"one for every round")), update


def _nothing(manifest: UpdateManifest, update: AdapterState) -> tuple[UpdateManifest, AdapterState]:
    return manifest, update


ATTACKS: dict[str, Attack] = {
    "forge": _nothing,
    "inflate": _inflate,
    "poison": _poison,
    "replay": _replay,
    "reshape": _reshape,
}
