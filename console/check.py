"""`foedus check`: whether an erasure certificate holds, for the members or from outside."""

from pathlib import Path
from typing import Annotated, Any

import typer

from chain.audit.outside import unsealed
from chain.audit.report import Failure
from chain.ledger import open_ledger
from chain.private import PrivateRounds, open_private_ledger
from console.options import (
    JsonOption,
    ReaderKeyOption,
    RunChainOption,
    StateOption,
    command_app,
    contract_of,
    read_file,
    readable_run,
    state_of,
)
from console.settings import absolute, saved
from console.views.failures import listed
from console.views.tables import answer
from core import keys
from core.errors import FormatError, UsageError
from core.signed import Signed
from core.storage.state_folder import State
from unlearning import check as certificates
from unlearning.certificate import ErasureCertificate, read_certificate

app = command_app()


@app.command(epilog="Example: foedus check certificate.json --json")
def check(
    certificate: Annotated[Path, typer.Argument(help="The certificate that `foedus forget` wrote.")],
    chain: RunChainOption = None,
    store: Annotated[str | None, typer.Option(help="From outside: folder or URL of the run's artifacts.")] = None,
    address: Annotated[str | None, typer.Option(help="From outside: the contract's address.")] = None,
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check an erasure certificate against the run's artifacts and the chain."""
    data = read_file("certificate", certificate, "a file of `foedus forget`")
    told: dict[str, Any] = {}
    try:
        signed = read_certificate(data)
    except FormatError as error:
        failures = [Failure("certificate", str(certificate), str(error), "canonical JSON of a certificate")]
    else:
        told = _told(signed.value)
        if store is None:
            failures = check_of_members(signed, state_of(state), chain, key)
        else:
            failures = _from_outside(signed, store, chain, address, key)
    result = {"ok": not failures, "failures": [vars(failure) for failure in failures], **told}
    verdict = f"The certificate does not hold: {failures[0]}" if failures else "The certificate holds"
    lines = [verdict, *listed(failures)]
    if told:
        days = f"{told['days']} days, by the clocks of the two"
        lines += [f"Label    {told['label']}", f"Asked    {told['asked']}, attested {told['attested']}: {days}"]
    answer(result, lines, as_json=as_json)
    return 1 if failures else 0


def _told(certificate: ErasureCertificate) -> dict[str, Any]:
    """What a certificate says of itself: its label, what is served, and how long the request for it waited."""
    attested = certificate.attestation.value
    days = {"asked": attested.request.value.date, "attested": attested.date, "days": attested.days}
    return {"label": certificate.label, "aggregate": certificate.aggregate, **days}


def check_of_members(
    signed: Signed[ErasureCertificate], state: State, chain: str | None = None, key: Path | None = None
) -> list[Failure]:
    """The failures of a certificate of a run in this state folder, by the members' chain too where the run has one."""
    digest = signed.value.attestation.value.request.value.genesis
    name = next((run.name for run in state.runs() if run.genesis.digest == digest), None)
    if name is None:
        raise UsageError(f"{state.folder}: expected a run of the genesis {digest}, got none: give --state or --store")
    run, settings = readable_run(state, name, key), saved(state, name)
    ledger = open_ledger(chain or settings.chain, state.folder, None, run.genesis.chain.contract)
    private = None
    if run.genesis.private and settings.private != "none":
        own = open_private_ledger(settings.private, state.folder, None, run.genesis.private.contract)
        private = PrivateRounds(own, ledger.bound, run.genesis.private.anchor_every)
    return list(certificates.check(signed, run, ledger, private))


def _from_outside(
    signed: Signed[ErasureCertificate], store: str, chain: str | None, contract: str | None, key: Path | None
) -> list[Failure]:
    if not chain or not contract or not key:
        missing = next(n for n, v in (("--chain", chain), ("--address", contract), ("--key", key)) if not v)
        raise UsageError(f"--store: expected --chain, --address and --key with it, got no {missing}")
    with unsealed(str(absolute("store", store)), keys.read(key.expanduser())) as (run, unread):
        ledger = open_ledger(chain, run.folder.parent, None, contract_of(contract))
        return [*unread, *certificates.check(signed, run, ledger)]
