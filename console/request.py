"""`foedus request`: an organisation asks that it, or some of its records, be erased; on its own machine.

The request is signed with the organisation's key: through its signer, which signs one for its own user or root alone,
or with the key file of its node. The coordinator is handed the file (`foedus forget --request FILE`).
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from client_app.remote_key import RemoteKey
from console.options import JsonOption, command_app, federation_of, writable_file
from console.views.tables import answer
from core import keys
from core.canonical import to_json
from core.config import RunConfig
from core.deployment import NodeSettings, SignerSettings
from core.erasures import OpenedRequest
from core.errors import UsageError
from core.signed import SigningKey
from core.storage.blobs import write
from core.storage.state_folder import State
from unlearning.plan import check_method
from unlearning.requests import read_digests, shards_of

app = command_app()

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder with signer.toml, or with node.toml where there is no signer.")
]


@app.command(epilog="Example: foedus request /etc/foedus/signer --method replay --out request.json")
def request(
    folder: FolderArgument,
    method: Annotated[str, typer.Option(help="remove, repair or replay; for records shards or replay.")],
    out: Annotated[Path, typer.Option(help="The file to write, for the coordinator.")],
    run: Annotated[str, typer.Option(help="The federation's run id [the newest that was agreed to].")] = "",
    records: Annotated[Path | None, typer.Option(help="Erase only the records in this JSONL file.")] = None,
    basis: Annotated[str, typer.Option(help="The legal basis.")] = RunConfig().basis,
    as_json: JsonOption = False,
) -> None:
    """Ask, as an organisation, that it or some of its records be erased: sign the request for it."""
    out = writable_file(out, records)
    key, state = own_key(folder)
    genesis = federation_of(state, run)
    member = genesis.named(genesis.keys.owner(key.address))
    digests = read_digests(records.expanduser()) if records else ()
    check_method(genesis, member.address, method, shards_of(genesis, member.address, digests))
    opened = OpenedRequest.of(key, genesis, method, digests, basis, datetime.now(UTC).date())
    write(out, to_json(opened.to_dict()))
    what = f"{len(digests)} records of {member.name}" if digests else member.name
    lines = [
        f"Signed   the request to erase {what} from run {genesis.run} by {method}",
        f"Written  {out}",
        "Next: hand it to the coordinator, who runs foedus forget --request FILE",
    ]
    asked = {"run": genesis.run, "organisation": member.name, "method": method, "records": len(digests) or None}
    answer(asked | {"request": opened.request.value.digest, "path": str(out)}, lines, as_json=as_json)


def own_key(folder: Path) -> tuple[SigningKey, State]:
    """An organisation's key, and the memory of what it agreed to; raises UsageError where a signer holds them."""
    memory = memory_of(folder)
    if _has_signer(folder):
        return RemoteKey(SignerSettings.read(folder).socket), memory
    node = NodeSettings.read(folder)
    if node.key_file is None:
        raise UsageError(f"{folder}: expected the folder of its signer, as its user or root, got that of the node")
    return keys.read(node.key_file, node.passphrase), memory


def memory_of(folder: Path) -> State:
    """The memory of what an organisation agreed to, in the folder of its signer, or of a node without one."""
    return State.at((SignerSettings if _has_signer(folder) else NodeSettings).read(folder).state)


def _has_signer(folder: Path) -> bool:
    return (folder.expanduser() / "signer.toml").exists()
