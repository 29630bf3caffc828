"""`foedus forget`: erase an organisation, or records of it, from a run."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from console.backends.federation import Backend, federate
from console.options import BaseOption, JsonOption, RunArgument, StateOption, command_app, state_of
from console.settings import build, restored
from console.views.tables import answer
from core.canonical import Address
from core.errors import RunError, UsageError
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from unlearning.certificate import ErasureCertificate, read_certificate
from unlearning.plan import Lanes, plans
from unlearning.records import read_digests, shards_of

app = command_app()


@app.command(epilog="Example: foedus forget --organisation coding --method replay")
def forget(  # noqa: PLR0913, PLR0917 - one parameter an option
    organisation: Annotated[str, typer.Option(help="The organisation to erase: name or address.")],
    method: Annotated[str, typer.Option(help="remove, repair or replay; for records shards or replay.")],
    run: RunArgument = "",
    records: Annotated[Path | None, typer.Option(help="Erase only the records in this JSONL file.")] = None,
    basis: Annotated[str | None, typer.Option(help="The legal basis that the organisation gives.")] = None,
    requester_key: Annotated[
        Path | None, typer.Option(help="The organisation's key file [derived, as in a simulation].")
    ] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="Where rounds are trained again [ray; inline if none is].")
    ] = None,
    base: BaseOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Erase an organisation, or some of its records, from a run; write and anchor the certificate."""
    started = time.monotonic()
    folder = state_of(state)
    found = folder.existing(run)
    address = found.genesis.named(organisation).address
    trains = _trains(found, address, method, records)
    options = {"organisation": address, "method": method, "basis": basis, "records": records and str(records)}
    options["requester-key"] = requester_key and str(requester_key)
    settings = build(options, [], None, replace(restored(folder, found.name, base), run=found.name, mode="unlearn"))
    federate(settings, backend or (Backend.ray if trains else Backend.inline))
    result = _result(found, newest_certificates(folder, found, address))
    result["seconds"] = round(time.monotonic() - started, 3)
    what = f"{result['records']} records of {result['organisation']}" if result["records"] else result["organisation"]
    given, missing = (", ".join(result[kind]) or "none" for kind in ("receipts", "outstanding"))
    lines = [
        f"Erased   {what} from run {found.name} by {result['method']}: {result['label']}",
        f"Adapter  {result['aggregate']}",
        f"Receipts {given}; outstanding: {missing}",
        f"Written  {result['certificate']}",
        f"Next: foedus check {result['certificate']} · foedus verify {found.name}",
    ]
    answer(result, lines, as_json=as_json)
    return 0


def _trains(run: RunFolder, organisation: Address, method: str, records: Path | None) -> bool:
    """Whether rounds must be trained again; raises UsageError for a request that cannot be."""
    if run.unfinished():
        begun = [s.value for s in run.erasures() if run.certificate(s.value) is None]
        return any(attestation.reaggregated < attestation.rounds for attestation in begun)
    shards = shards_of(run.genesis, organisation, read_digests(records.expanduser())) if records else None
    try:
        return any(made.reaggregated < made.rounds for made in plans(Lanes.read(run), organisation, method, shards))
    except UsageError:
        own = (s.value for s in run.erasures() if s.value.organisation == organisation)
        if any(run.certificate(attestation) for attestation in own):
            return False  # the chain may not have been told yet; the ServerApp finds out, or says the same
        raise


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
