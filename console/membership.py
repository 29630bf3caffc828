"""What `foedus members join`, `leave` and `sign-leave` do: the ServerApp changes members, an organisation signs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from console.backends.federation import Backend, federate
from console.deployments.federation_folder import FederationFolder
from console.options import federation_of, state_of, writable_file
from console.request import own_key
from console.settings import build, restored
from console.views.report import members_of
from console.views.tables import answer
from core.canonical import to_json
from core.membership import Leave
from core.storage.blobs import write


def change(given: Mapping[str, str], run: str, federation: str, state: Path | None, *, as_json: bool = False) -> None:
    """Have the ServerApp change a run's members as these settings say, and print who they are now."""
    deployment = FederationFolder.named(federation) if federation else None
    folder = state_of(deployment.state if deployment else state)
    found = folder.existing(run)
    settings = build(given, [], None, replace(restored(folder, found.name), run=found.name))
    # Who leaves has signed already: nobody is asked, so nothing need be connected.
    on_nodes = deployment.folder if deployment and given["mode"] == "join" else None
    federate(settings, Backend.inline, on_nodes)
    members = members_of(folder.existing(found.name))
    lines = [f"Members  {', '.join(members)}", f"Next: foedus run --resume {found.name}"]
    answer({"run": found.name, "members": members}, lines, as_json=as_json)


def sign(folder: Path, out: Path, run: str, *, as_json: bool = False) -> None:
    """Sign that the organisation of this folder leaves a run, for its coordinator."""
    out = writable_file(out)
    key, memory = own_key(folder)
    genesis = federation_of(memory, run)
    signed = Leave(genesis.digest, genesis.named(key.address).address).sign(key, genesis.chain)
    write(out, to_json(signed.to_dict()))
    lines = [f"Written  {out}", "Next: hand it to the coordinator, who runs foedus members leave --request FILE"]
    answer({"run": genesis.run, "organisation": key.address, "path": str(out)}, lines, as_json=as_json)
