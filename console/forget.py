"""`foedus forget`: erase an organisation, or records of it, from a run."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from console.backends.federation import Backend, federate
from console.options import BaseOption, JsonOption, RunArgument, StateOption, command_app, state_of
from console.settings import build, restored
from console.views.tables import answer
from core.canonical import Address
from core.erasures import OpenedRequest
from core.errors import RunError, UsageError
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from unlearning.certificate import ErasureCertificate, read_certificate
from unlearning.plan import Lanes, plans
from unlearning.requests import request_of, shards_of

app = command_app()

RequestOption = Annotated[
    Path | None, typer.Option(help="The organisation's signed request, as foedus request writes it.")
]


@app.command(epilog="Example: foedus forget --organisation coding --method replay")
def forget(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunArgument = "",
    request: RequestOption = None,
    organisation: Annotated[
        str, typer.Option(help="In a simulation, without a request: the organisation, by name or address.")
    ] = "",
    method: Annotated[str, typer.Option(help="Likewise: remove, repair or replay; for records shards or replay.")] = "",
    records: Annotated[Path | None, typer.Option(help="Likewise: erase only the records in this JSONL file.")] = None,
    basis: Annotated[str | None, typer.Option(help="Likewise: the legal basis that the organisation gives.")] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="Where rounds are trained again [ray; inline if none is].")
    ] = None,
    base: BaseOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Erase an organisation, or some of its records, from a run; write and anchor the certificate.

    An organisation with a key of its own asks with `foedus request`, on its own machine.
    """
    started, folder = time.monotonic(), state_of(state)
    found = folder.existing(run)
    options = {"request": request, "organisation": organisation, "method": method, "records": records, "basis": basis}
    given = _either(options)
    settings = build(given, [], None, replace(restored(folder, found.name, base), run=found.name, mode="unlearn"))
    opened = request_of(settings, found.genesis)
    federate(settings, backend or (Backend.ray if _trains(found, opened) else Backend.inline))
    result = _result(found, newest_certificates(folder, found, opened.request.value.organisation))
    result["seconds"] = round(time.monotonic() - started, 3)
    what = f"{result['records']} records of {result['organisation']}" if result["records"] else result["organisation"]
    lines = [
        f"Erased   {what} from run {found.name} by {result['method']}: {result['label']}",
        f"Adapter  {result['aggregate']}",
        f"Receipts {_listed(result['receipts'])}; outstanding: {_listed(result['outstanding'])}",
        f"Written  {result['certificate']}",
        f"Next: foedus check {result['certificate']} · foedus verify {found.name}",
    ]
    answer(result, lines, as_json=as_json)
    return 0


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _either(options: Mapping[str, Path | str | None]) -> dict[str, str]:
    """The options that were given; raises UsageError unless they are a request, or what a simulation asks for."""
    given = {name: str(value) for name, value in options.items() if value}
    if not (given.keys() == {"request"} or ("request" not in given and {"organisation", "method"} <= given.keys())):
        got = ", ".join(f"--{name}" for name in given) or "neither"
        raise UsageError(f"expected --request alone, or --organisation and --method, got {got}")
    return given


def _trains(run: RunFolder, opened: OpenedRequest) -> bool:
    """Whether rounds must be trained again.

    Raises UsageError for a request that cannot be carried out, ForgeryError for one that is not its organisation's.
    """
    request = opened.verified(run.genesis).value
    if run.unfinished():
        begun = [s.value for s in run.erasures() if run.certificate(s.value) is None]
        return any(attestation.reaggregated < attestation.rounds for attestation in begun)
    if any(signed.value.request.value.question == request.question for signed in run.erasures()):
        return False  # it is carried out already
    shards = shards_of(run.genesis, request.organisation, opened.records)
    planned = plans(Lanes.read(run), request.organisation, request.method, shards)
    return any(made.reaggregated < made.rounds for made in planned)


def newest_certificates(state: State, run: RunFolder, organisation: Address) -> dict[Path, ErasureCertificate]:
    """The certificates of an organisation's newest erasure, one a lane, as its event in the log names them."""
    events, _ = EventLog.read(state.events(run.name))
    erased = [event for event in events if event["event"] == "erased" and event["organisation"] == organisation]
    if not erased:
        raise RunError(f"expected an erasure of {organisation} in {state.events(run.name)}, got none: ask for it again")
    names = (Path(path).name for path in erased[-1]["certificates"])
    paths = [run.folder / "certificates" / name for name in names]  # the state folder may have been moved
    return {path: read_certificate(path.read_bytes()).value for path in paths}


def _result(run: RunFolder, written: dict[Path, ErasureCertificate]) -> dict[str, Any]:
    """The certificates of one erasure as one result; the last speaks for the run."""
    path, certificate = list(written.items())[-1]
    request, names = certificate.attestation.value.request.value, run.genesis.names
    outstanding = {holder for one in written.values() for holder in one.outstanding}
    signed = {receipt.value.organisation for one in written.values() for receipt in one.receipts} - outstanding
    return {
        "run": run.name,
        "organisation": names[request.organisation],
        "records": request.count or None,
        "method": request.method,
        "certificate": str(path),
        "certificates": [str(path) for path in written],
        "label": certificate.label,
        "aggregate": certificate.aggregate,
        "metrics": {name: dict(values) for name, values in certificate.metrics.items()},
        "receipts": [name for address, name in names.items() if address in signed],
        "outstanding": [name for address, name in names.items() if address in outstanding],
    }
