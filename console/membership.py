"""What `foedus members join`, `leave`, `rotate`, `sign-leave` and `sign-rotation` do."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from client_app.agreement import Agreement
from console.backends.federation import Backend, federate
from console.deployments.federation_folder import FederationFolder
from console.options import federation_of, state_of, writable_file
from console.request import memory_of, own_key
from console.settings import build, restored
from console.views.report import members_of
from console.views.tables import answer
from core import keys
from core.canonical import to_json
from core.deployment import MOST_DRAWS
from core.errors import UsageError
from core.membership import Leave
from core.rotations import Rotation
from core.storage.blobs import write


def change(given: Mapping[str, str], run: str, federation: str, state: Path | None, *, as_json: bool = False) -> None:
    """Have the ServerApp change a run's members as these settings say, and print who they are now."""
    deployment = FederationFolder.named(federation) if federation else None
    folder = state_of(deployment.state if deployment else state)
    found = folder.existing(run)
    settings = build(given, [], None, replace(restored(folder, found.name), run=found.name))
    # Who leaves, or has a new key, has signed already: nobody is asked, so nothing need be connected.
    on_nodes = deployment.folder if deployment and given["mode"] == "join" else None
    federate(settings, Backend.inline, on_nodes)
    members = members_of(folder.existing(found.name))
    where = f"--federation {federation} " if federation else ""
    lines = [f"Members  {', '.join(members)}", f"Next: foedus run {where}--resume {found.name}"]
    answer({"run": found.name, "members": members}, lines, as_json=as_json)


def sign(folder: Path, out: Path, run: str, *, as_json: bool = False) -> None:
    """Sign that the organisation of this folder leaves a run, for its coordinator."""
    out = writable_file(out)
    key, memory = own_key(folder)
    genesis = federation_of(memory, run)
    signed = Leave(genesis.digest, genesis.named(genesis.keys.owner(key.address)).address).sign(key, genesis.chain)
    write(out, to_json(signed.to_dict()))
    lines = [
        f"Written  {out}",
        "Next: hand it to the coordinator, who runs foedus members leave --request FILE --federation NAME",
    ]
    answer({"run": genesis.run, "organisation": signed.value.organisation, "path": str(out)}, lines, as_json=as_json)


def sign_new_key(folder: Path, new_key: Path, out: Path, lost: str, run: str, *, as_json: bool = False) -> None:
    """Sign that a new key replaces that of this folder, for its coordinator; `lost`: who has the old one no more."""
    out, new, memory = writable_file(out, new_key), keys.read(new_key.expanduser()), memory_of(folder)
    genesis = federation_of(memory, run)
    old = None if lost else own_key(folder)[0]
    owner = genesis.named(genesis.keys.owner(old.address) if old else lost).address
    if not (by := old.address if old else genesis.administrator):
        raise UsageError(f"run {genesis.run}: expected an administrator, who can replace a lost key, got none")
    rotation = Rotation(genesis.digest, owner, genesis.signing(owner), new.address, by)
    signed = rotation.sign(old, genesis.chain, new) if old else rotation.sign(new, genesis.chain)
    # Its signer signs for no federation that its key has not agreed to, and the new one agrees to this one here.
    Agreement.of(memory, new, MOST_DRAWS).succeed(genesis)
    write(out, to_json(signed.to_dict()))
    then = "" if old else " --administrator-key KEY"
    lines = [
        f"Written  {out}",
        f"Next: hand it to the coordinator, who runs foedus members rotate --request FILE{then} --federation NAME",
        "Then:    put the new key in the old one's place, and start signer and node again",
    ]
    answer({"run": genesis.run, "organisation": owner, "key": new.address, "path": str(out)}, lines, as_json=as_json)
