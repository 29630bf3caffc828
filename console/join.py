"""`foedus join`: an organisation's folder and keys from a coordinator's kit, and the request that goes back."""

from pathlib import Path
from typing import Annotated

import typer

from chain.joining import JoinKit, JoinRequest
from console.deployments import organisation_folder
from console.deployments.organisation_folder import Choices
from console.options import JsonOption, command_app, parse_file
from console.views.tables import answer, screen, show
from core.deployment import NODE_METRICS

app = command_app()


@app.command(epilog="Example: foedus join medical.json --out /srv/foedus/medical --data /srv/data")
def join(  # noqa: PLR0913, PLR0917 - one parameter an option
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="The kit that the coordinator has sent.")],
    out: Annotated[Path | None, typer.Option(help="The organisation's folder [its name, in this folder].")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with NAME.jsonl or NAME/train.jsonl [OUT/node/data].")
    ] = None,
    base: Annotated[str, typer.Option("--base", help="Where the base lies here [as the kit names it].")] = "",
    chain: Annotated[str, typer.Option("--chain", help="An RPC URL of your own choosing [the kit's].")] = "",
    node_user: Annotated[str, typer.Option(help="User of the machine that runs the node [you].")] = "",
    signer_user: Annotated[str, typer.Option(help="Another one, that runs the signer [you].")] = "",
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Encrypt the key: a file of the passphrase, which the signer reads.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help='ADDRESS:PORT for the node\'s metrics and health, or "".')
    ] = NODE_METRICS,
    as_json: JsonOption = False,
) -> None:
    """Make an organisation's keys and folders from a kit, and the request that goes back to its coordinator.

    The keys stay here. The node's settings pin what the kit says.
    """
    read = parse_file("kit", kit, "a kit of `foedus deploy init`", JoinKit.from_json)
    folder, paths = (out or Path(read.organisation)).absolute(), [p and p.absolute() for p in (data, passphrase_file)]
    choices = Choices(paths[0], base, chain, node_user, signer_user, paths[1], metrics)
    made = organisation_folder.join(read, folder, choices)
    show(*organisation_folder.notes(folder, choices), on=screen(stderr=True))
    result = {
        "path": str(folder),
        "organisation": made.organisation,
        "address": made.address,
        "node_key": made.membership.node_key,
        "kit": made.kit,
        "coordinator": read.coordinator,
        "request": str(folder / "request.json"),
    }
    answer(result, to_compare(read, made, folder), as_json=as_json)


def to_compare(kit: JoinKit, made: JoinRequest, folder: Path) -> list[str]:
    """What both sides compare by phone, and what comes next."""
    return [
        f"Kit          {made.kit} for {made.organisation}, of {kit.coordinator} at {kit.superlink}",
        f"Address      {made.address}",
        f"Node key     {made.membership.node_key}",
        f"Send {folder / 'request.json'} to the coordinator, and compare these by phone.",
        f"Then start `foedus signer {folder / 'signer'}` and `foedus node {folder / 'node'}`, or {folder / 'systemd'}",
    ]
