"""`foedus deploy`: a coordinator's side of a deployment, from one small file to a federation that may start."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from chain.joining import JoinRequest
from console.backends.federation import Backend, federate
from console.deployments.dry_run import tried
from console.deployments.federation_folder import FederationFolder
from console.options import FederationOption, JsonOption, command_app, parse_file
from console.views.progress import working
from console.views.tables import answer, short, table
from core.config import RunConfig
from core.deployment import FederationSettings
from core.storage.state_folder import State, new_run_id

app = command_app(
    help="A deployment's folders, kits, and who is admitted.",
    epilog="Example: foedus deploy init federation.toml",
    no_args_is_help=True,
)


@app.command(epilog="Example: foedus deploy init federation.toml --out /etc/foedus/clinics")
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="federation.toml: name, hosts, organisations, …")],
    out: Annotated[
        Path | None, typer.Option(help="The coordinator's folder [the federation's name, in this folder].")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the coordinator's folder: key, certificates, contract, units, and a kit for each organisation.

    Keys and a contract that are there stay. It may be run again: after a change of the file, for a certificate that
    ends, or once the coordinator's account has funds.
    """
    given = FederationSettings.read_file(file)
    found = FederationFolder((out or Path(given.name)).expanduser().absolute())
    found.write_settings(given)
    key = found.key()
    certificate = found.certify(given)
    with working(f"looking for the contract on chain {given.chain}"):
        from chain.control import public_contract  # noqa: PLC0415 - web3, which a wrong file must not wait for

        domain = public_contract(given.chain, found.state, key)
    kits = {kit.organisation: kit.digest for kit in found.write_kits(domain)}
    found.write_units()
    shown = [{"organisation": o, "file": str(found.kit_file(o)), "digest": digest} for o, digest in kits.items()]
    result: dict[str, Any] = {
        "path": str(found.folder),
        "coordinator": key.address,
        "chain_id": domain.chain_id,
        "contract": domain.contract,
        "superlink": given.superlink,
        "certificate_until": certificate.not_valid_after_utc.isoformat(),
        "kits": shown,
    }
    rows = [(kit["organisation"], kit["file"], short(kit["digest"])) for kit in shown]
    parts: list[RenderableType] = [
        table(f"Federation {given.name} in {found.folder}", ("organisation", "kit", "digest"), rows),
        f"Coordinator {key.address}, contract {domain.contract} on chain {domain.chain_id}",
    ]
    answer(result, parts, as_json=as_json)


@app.command(epilog="Example: foedus deploy admit medical.json financial.json --federation clinics")
def admit(
    requests: Annotated[list[Path], typer.Argument(metavar="REQUEST...", help="Requests that organisations sent.")],
    federation: FederationOption = ".",
    as_json: JsonOption = False,
) -> None:
    """Admit organisations: their node keys, their addresses, and where it is wanted their place on the chain."""
    found = FederationFolder.named(federation)
    read = [parse_file("request", p, "an organisation's request", JoinRequest.from_json) for p in requests]
    admitted = [found.admit(request) for request in read]
    registered = register_all(found, admitted) if found.settings.require_registration else []
    organisations = [
        {
            "organisation": request.organisation,
            "address": request.address,
            "node_key": request.membership.node_key,
            "kit": request.kit,
            "registered": request.address in registered,
        }
        for request in admitted
    ]
    rows = [(o["organisation"], o["address"], short(str(o["node_key"])), short(str(o["kit"]))) for o in organisations]
    headings = ("organisation", "address", "node key", "kit")
    parts: list[RenderableType] = [table(f"Admitted to {found.settings.name}", headings, rows)]
    parts.append("Compare address and node key by phone.")
    answer({"path": str(found.folder), "organisations": organisations}, parts, as_json=as_json)


@app.command(epilog="Example: foedus deploy check --federation clinics")
def check(
    federation: FederationOption = ".",
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait for the nodes' answers.")] = 600.0,
    as_json: JsonOption = False,
) -> int:
    """Have every node load its base and data and do one step, before a federation is founded.

    Nothing is founded, signed or drawn, and the step is on made-up records. The exit status is 1 when a node could not
    take part.
    """
    found = FederationFolder.named(federation)
    decided = found.run_settings() | {"state": str(found.state), "run": new_run_id(), "mode": "check"}
    settings = RunConfig.from_flat(RunConfig().to_flat() | decided | {"timeout": timeout})
    federate(settings, Backend.ray, found.folder)
    admitted = [request.organisation for request in found.admitted()]
    nodes = list(tried(State.of(settings).events(settings.run), admitted))
    ok = not any(node.problems for node in nodes)
    rows = [(n.organisation, f"{n.seconds:.1f} s", f"{n.memory / 2**20:,.0f} MiB", "; ".join(n.problems) or "none")
            for n in nodes]  # fmt: skip
    title = "Every node could take part" if ok else "Not every node could take part"
    headings = ("organisation", "one step", "memory", "problems")
    parts: list[RenderableType] = [table(title, headings, rows, numbers=headings[1:3]), "Nothing was founded."]
    answer({"ok": ok, "nodes": [node.to_dict() for node in nodes]}, parts, as_json=as_json)
    return 0 if ok else 1


def register_all(found: FederationFolder, admitted: list[JoinRequest]) -> list[str]:
    """Register organisations with the contract; returns their addresses."""
    from chain.registry import registry_of  # noqa: PLC0415 - web3

    registry = registry_of(found.settings.chain, found.state, None, found.key())
    for request in admitted:
        registry.register(request.membership)
    return [request.address for request in admitted]
