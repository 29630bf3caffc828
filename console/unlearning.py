"""`foedus forget` and `foedus check`: erase an organisation or records of it, and check the certificate."""

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.audit.outside import unsealed
from chain.audit.run import Failure
from chain.ledger import EthereumLedger, open_ledger
from chain.private import PrivateRounds, open_private_ledger
from console.federation import Backend, federate
from console.options import (
    JsonOption,
    KeyOption,
    RunArgument,
    StateOption,
    answer,
    contract_of,
    read_file,
    run_of,
    state_of,
)
from console.settings import absolute, build, saved
from core import keys
from core.canonical import Address
from core.config import RunConfig
from core.errors import FormatError, UsageError
from core.signed import Signed
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from unlearning.certificate import ErasureCertificate, read_certificate
from unlearning.check import check as check_certificate
from unlearning.plan import Lanes, plans
from unlearning.records import read_digests, shards_of


def forget(  # noqa: PLR0913, PLR0917 - one parameter an option
    organisation: Annotated[str, typer.Option(help="Who is to be erased: name or address.")],
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
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Erase an organisation, or some of its records, from a run; write and anchor the certificate."""
    started = time.monotonic()
    folder = state_of(state)
    found = folder.existing(run)
    address = found.genesis.named(organisation).address
    file = absolute("records", records) if records else None
    trains = _trains(found, address, method, file)
    options = {"organisation": address, "method": method, "basis": basis}
    options["requester-key"] = str(requester_key) if requester_key else None
    options["records"] = str(file) if file else None
    settings = build(options, [], None, replace(saved(folder, found.name), run=found.name, mode="unlearn"))
    federate(settings, backend or (Backend.ray if trains else Backend.inline))
    written = _newest(found, address)
    certificate = list(written.values())[-1]
    outstanding = {holder for one in written.values() for holder in one.outstanding}
    result: dict[str, Any] = {
        "run": found.name,
        "organisation": found.genesis.named(address).name,
        "records": certificate.attestation.value.request.value.count or None,
        "method": method,
        "certificate": str(list(written)[-1]),
        "certificates": [str(path) for path in written],
        "label": certificate.label,
        "aggregate": certificate.aggregate,
        "metrics": {name: dict(values) for name, values in certificate.metrics.items()},
        "receipts": _names(
            found, {r.value.organisation for one in written.values() for r in one.receipts} - outstanding
        ),
        "outstanding": _names(found, outstanding),
        "seconds": round(time.monotonic() - started, 3),
    }
    answer(result, _lines(result), as_json)
    return 0


def check(
    certificate: Annotated[Path, typer.Argument(help="The certificate that `foedus forget` wrote.")],
    chain: Annotated[str | None, typer.Option(help="embedded, anvil or an RPC URL [the run's own].")] = None,
    store: Annotated[str | None, typer.Option(help="From outside: folder or URL of the run's artifacts.")] = None,
    address: Annotated[str | None, typer.Option(help="From outside: the contract's address.")] = None,
    key: KeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check an erasure certificate against the run's artifacts and the chain."""
    data = read_file("certificate", certificate, "a file of `foedus forget`")
    try:
        signed = read_certificate(data)
    except FormatError as error:
        failures = (Failure("certificate", str(certificate), str(error), "canonical JSON of a certificate"),)
        return _verdict(signed=None, failures=failures, as_json=as_json)
    if store is not None:
        if not chain or not address or not key:
            raise UsageError("--store got no --chain, --address or --key; whoever checks from outside has all four")
        with unsealed(str(absolute("store", store)), keys.read(key.expanduser())) as (run, unread):
            ledger = open_ledger(chain, run.folder.parent, None, contract_of(address))
            return _verdict(signed, (*unread, *check_certificate(signed, run, ledger)), as_json)
    folder = state_of(state)
    run = run_of(folder, _name(folder, signed), key)
    settings = saved(folder, run.name)
    ledger = open_ledger(chain or settings.chain, folder.folder, None, run.genesis.chain.contract)
    private = _private(folder, settings, run, ledger)
    return _verdict(signed, check_certificate(signed, run, ledger, private), as_json)


def _trains(run: RunFolder, organisation: Address, method: str, records: Path | None) -> bool:
    """Whether rounds must be trained again; raises UsageError for a request that cannot be."""
    if run.unfinished():
        begun = [s.value for s in run.erasures() if run.certificate(s.value) is None]
        return any(attestation.reaggregated < attestation.rounds for attestation in begun)
    shards = shards_of(run.genesis, organisation, read_digests(records)) if records else None
    try:
        return any(made.carried < made.rounds for made in plans(Lanes.read(run), organisation, method, shards))
    except UsageError:
        own = (s.value for s in run.erasures() if s.value.organisation == organisation)
        if any(run.certificate(attestation) for attestation in own):
            return False  # the chain may not have been told yet; the ServerApp finds out, or says the same
        raise


def _names(run: RunFolder, organisations: Collection[Address]) -> list[str]:
    return [member.name for member in run.genesis.organisations if member.address in organisations]


def _newest(run: RunFolder, organisation: Address) -> dict[Path, ErasureCertificate]:
    """The certificates of what an organisation has asked for last, by lane."""
    own = [s.value for s in run.erasures() if s.value.organisation == organisation]
    found = [(path, one.request) for one in own if (path := run.certificate(one))]
    if not found:
        raise UsageError(f"the erasure of {organisation} has no certificate: ask for it again")
    _, request = max(found, key=lambda one: one[0].stat().st_mtime_ns)
    paths = (path for path, other in found if other == request)
    return {path: read_certificate(path.read_bytes()).value for path in paths}


def _name(state: State, signed: Signed[ErasureCertificate]) -> str:
    """The run that a certificate is of; raises UsageError."""
    wanted = signed.value.attestation.value.request.value.genesis
    for run in state.runs():
        if run.genesis.digest == wanted:
            return run.name
    raise UsageError(f"no run in {state.folder} has the genesis {wanted} of the certificate: --state or --store wanted")


def _private(state: State, settings: RunConfig, run: RunFolder, public: EthereumLedger) -> PrivateRounds | None:
    """The members' chain where the run has one."""
    if run.genesis.private is None or settings.private == "none":
        return None
    own = open_private_ledger(settings.private, state.folder, None, run.genesis.private.contract)
    return PrivateRounds(own, public.bound, run.genesis.private.anchor_every)


def _verdict(signed: Signed[ErasureCertificate] | None, failures: tuple[Failure, ...], as_json: bool) -> int:
    result = {"ok": not failures, "failures": [vars(failure) for failure in failures]}
    lines = ["The certificate holds"] if not failures else [f"The certificate does not hold: {failures[0]}"]
    if len(failures) > 1:
        lines.append(f"and {len(failures) - 1} more; --json lists them all")
    if signed:
        certificate = signed.value
        result |= {"label": certificate.label, "aggregate": certificate.aggregate}
        lines.append(f"Label    {certificate.label}, by {certificate.attestation.value.method}")
    answer(result, lines, as_json)
    return 1 if failures else 0


def _lines(result: dict[str, Any]) -> list[str]:
    what = f"{result['records']} records of {result['organisation']}" if result["records"] else result["organisation"]
    given, missing = (", ".join(result[kind]) or "none" for kind in ("receipts", "outstanding"))
    return [
        f"Erased   {what} from run {result['run']} by {result['method']}: {result['label']}",
        f"Adapter  {result['aggregate']}",
        f"Receipts {given}; outstanding: {missing}",
        f"Written  {result['certificate']}",
        f"Next: foedus check {result['certificate']} · foedus verify {result['run']}",
    ]
