"""`foedus approve`: what an organisation's site policy holds, let go or kept by a person; and what has left the site.

A person approves a manifest, which binds federation, round and the update's bytes; the bytes that the node keeps are
compared with it first. Where a signer holds the key, it holds the update: its user or root alone may let it go.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from client_app.agreement import kept
from client_app.approvals import Approvals, HeldUpdates
from client_app.remote_key import RemoteKey
from console.options import JsonOption, command_app
from console.views.tables import answer, short, table
from core import keys
from core.canonical import Digest
from core.deployment import NodeSettings
from core.errors import FormatError, UsageError
from core.storage import jsonl
from core.storage.state_folder import State
from core.update import UpdateManifest

app = command_app()

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The organisation's folder of `foedus join`, or that with node.toml.")
]


class Approver(Protocol):
    """Who holds updates: a signer, or the node that has the key."""

    def waiting(self) -> Sequence[UpdateManifest]:
        """What waits."""

    def decide(self, manifest: Digest, *, released: bool) -> None:
        """Let an update go, or keep it."""


@app.command(epilog="Example: foedus approve /srv/foedus/medical --yes 0x…")
def approve(
    folder: FolderArgument,
    yes: Annotated[str, typer.Option("--yes", metavar="DIGEST", help="Let this update go, as the list names it.")] = "",
    refuse: Annotated[str, typer.Option("--refuse", metavar="DIGEST", help="Keep this update at home.")] = "",
    log: Annotated[bool, typer.Option("--log", help="Show what has left the site.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the updates that a site's policy holds for a person, and let one go or keep it.

    The coordinator's round waits meanwhile, unless it has `grace`. An update that is let go leaves when the coordinator
    asks for it again, which it does every half minute while the round is open.
    """
    if bool(yes) + bool(refuse) + log > 1:
        raise UsageError("expected one of --yes, --refuse and --log, got several")
    settings = NodeSettings.read(folder / "node" if (folder / "node" / "node.toml").is_file() else folder)
    state = State.at(settings.state)
    if log:
        sent = jsonl.read(state.sent)
        answer({"organisation": settings.organisation, "sent": sent}, list(_sent(sent)), as_json=as_json)
        return
    approver = _approver(settings, state)
    held = [described(state, manifest) for manifest in approver.waiting()]
    decided = None
    if yes or refuse:
        chosen = _chosen(held, yes or refuse)
        if yes and chosen["problem"]:
            raise FormatError(f"{chosen['problem']}: nothing was let go")
        decided = "released" if yes else "refused"
        approver.decide(Digest(chosen["manifest"]), released=bool(yes))
        held = [chosen]
    result = {"organisation": settings.organisation, "held": held, "decided": decided}
    answer(result, list(_tables(held, decided, folder)), as_json=as_json)


def _approver(settings: NodeSettings, state: State) -> Approver:
    """The signer, or where the node holds the key its own memory."""
    if settings.signer:
        return RemoteKey(settings.signer)
    assert settings.key_file is not None  # noqa: S101 - one of the two is given
    return Approvals(state.approvals(keys.read(settings.key_file, settings.passphrase).address))


def described(state: State, manifest: UpdateManifest) -> dict[str, Any]:
    """A held update: what its manifest says, and what its bytes on this node are; `problem` where they are others."""
    genesis = kept(manifest.genesis, state.agreed_genesis())
    found: dict[str, Any] = {"bytes": None, "norm": None, "problem": None}
    try:
        update = HeldUpdates(state.held(manifest.genesis, manifest.organisation)).open(manifest)
        found |= {"bytes": len(update.data), "norm": update.state.norm}
    except (FormatError, UsageError) as error:
        found["problem"] = str(error)
    return {
        "run": genesis.run,
        "lane": manifest.lane,
        "generation": manifest.generation,
        "round": manifest.round,
        "manifest": manifest.digest,
        "digest": manifest.update,
        "steps": manifest.bid.steps,
        "rank": manifest.bid.rank,
        "records": manifest.examples,
        "registered": genesis.examples[manifest.organisation],
    } | found


def _chosen(held: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """The held update that is meant; raises UsageError."""
    found = [entry for entry in held if name in (entry["manifest"], entry["digest"])]
    if len(found) != 1:
        known = ", ".join(entry["manifest"] for entry in held) or "none: nothing is held"
        raise UsageError(f"expected an update that is held ({known}), got {name!r}")
    return found[0]


def _tables(held: Sequence[dict[str, Any]], decided: str | None, folder: Path) -> Iterator[Any]:
    if not held:
        yield "Nothing is held."
        return
    yield table(
        f"{'Held for approval' if decided is None else decided.capitalize()}",
        ("run", "round", "bytes", "norm", "records", "update"),
        (
            (
                entry["run"],
                entry["round"],
                entry["bytes"],
                None if entry["norm"] is None else f"{entry['norm']:.3f}",
                f"{entry['records']} of {entry['registered']}",
                short(entry["digest"]),
            )
            for entry in held
        ),
        numbers=("round", "bytes", "norm", "records"),
    )
    for entry in held:
        yield f"{entry['problem']}" if entry["problem"] else f"Manifest {entry['manifest']}, update {entry['digest']}"
    if decided is None:
        yield f"Next: foedus approve {folder} --yes DIGEST, or --refuse DIGEST"


def _sent(sent: Sequence[dict[str, Any]]) -> Iterator[Any]:
    yield table(
        "What has left the site",
        ("when", "what", "run", "round", "bytes", "digest", "to"),
        ((e["at"], e["what"], e["run"], e.get("round"), e["bytes"], short(e["digest"]), short(e["to"])) for e in sent),
        numbers=("round", "bytes"),
    )
