"""A Flower mod that signs what a train handler returns with the organisation's own key.

The handler describes its update in an UpdateManifest; this is the one place where a key is used on it, so that
handlers, and mods that change a reply before it gets here, need not know that there are keys.
"""

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from client_app.hosting import node_of
from core.errors import IntegrityError
from core.messages import codec as wire


def sign_update(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Sign the manifest of a reply, and remember it before it is sent; a refusal passes unsigned.

    Raises IntegrityError when the manifest does not describe what the reply carries.
    """
    task = wire.Task.from_content(message.content)
    reply = call_next(message, context)
    if wire.Refusal.from_content(reply.content):
        return reply
    manifest = wire.manifest_of(reply.content)
    if (update := wire.unpack(reply.content, "update").digest) != manifest.update:
        raise IntegrityError(f"manifest names update {manifest.update}, the reply carries {update}")
    node = node_of(context)
    signed = manifest.sign(node.host(manifest.organisation).key, task.genesis.chain)
    node.oversight.witness(task).sent(signed)
    wire.attach_signature(reply.content, signed.signatures[0])
    return reply
