"""Signing: the one place where an organisation's key is used on what belongs to a federation."""

from typing import TypeVar

from flwr.app import RecordDict

from client_app.hosting import Host, Node
from client_app.remote_key import RemoteKey
from client_app.witness import Witness
from core.errors import HeldError
from core.genesis import Genesis
from core.messages import training
from core.messages.training import Task
from core.signed import Signed, Statement
from core.update import UpdateManifest
from core.wire import Travelling

S = TypeVar("S", bound=Statement)


def signed(statement: S, host: Host, genesis: Genesis, task: Task | None = None) -> Signed[S]:
    """A statement of the organisation; its signer, if it has one, is first shown what a task showed.

    Raises IntegrityError when the signer refuses.
    """
    if task and isinstance(host.key, RemoteKey):
        host.key.show(genesis, task)
    return statement.sign(host.key, genesis.chain)


def signed_reply(
    manifest: UpdateManifest, update: Travelling, host: Host, witness: Witness, task: Task, node: Node
) -> RecordDict:
    """The content of a reply: an update and its signed manifest, which the witness remembers before it is sent.

    Raises HeldError for one that the site's policy holds, and keeps it for when the task comes again.
    """
    held = node.held_updates(host, task.genesis)
    try:
        node.check_approved(host, manifest)
        statement = signed(manifest, host, task.genesis, task)
    except HeldError:
        held.keep(manifest, update)
        raise
    held.drop(manifest.lane)
    witness.sent(statement)
    return training.reply(statement, update)
