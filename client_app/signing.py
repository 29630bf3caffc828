"""Signing: the one place where an organisation's key is used on an update."""

from flwr.app import RecordDict

from client_app.hosting import Host
from client_app.witness import Witness
from core.adapter import AdapterState
from core.keys import Domain
from core.messages import training
from core.update import UpdateManifest


def signed_reply(
    manifest: UpdateManifest, update: AdapterState, host: Host, witness: Witness, domain: Domain
) -> RecordDict:
    """The content of a reply: an update and its signed manifest, which the witness remembers before it is sent."""
    signed = manifest.sign(host.key, domain)
    witness.sent(signed)
    return training.reply(signed, update)
