"""`foedus evidence`: whether the evidence of a verdict holds, or the receipt of an answer that `foedus serve` gave."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.ledger import open_ledger
from console.options import JsonOption, StateOption, command_app, read_file, state_of
from console.roots import AddressOption, GenesisOption, Roots, judged
from console.views.tables import answer
from core.answers import checked_bundle
from core.canonical import parse_json
from core.errors import FormatError, IntegrityError
from core.ledger import Anchor
from provenance.evidence import Evidence

app = command_app()


@app.command(epilog="Example: foedus evidence evidence.json --genesis 0x… --chain embedded")
def evidence(
    file: Annotated[Path, typer.Argument(help="The bundle of a verdict, or the receipt of an answer.")],
    signer: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Of a receipt: the server's address, as you know it.")
    ] = "",
    genesis: GenesisOption = "",
    address: AddressOption = "",
    chain: Annotated[str, typer.Option(help="Ask this chain too: embedded, anvil or an RPC URL.")] = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check the evidence of a verdict: signatures, lineage, Merkle proofs and verdict, and with --chain the anchors.

    Or the receipt of an answer that foedus serve gave: request, answer, federation, and the server's signature.
    """
    data = read_file("evidence", file, "a file of `foedus attribute --evidence`")
    roots = Roots(genesis, address, state_of(state), signer)
    if is_receipt(data):
        return _check_receipt(data, roots, as_json=as_json)
    # A contract is a root by what it records: that has to be read.
    return _check_verdict(data, roots, chain or ("embedded" if address else ""), as_json=as_json)


def is_receipt(data: bytes) -> bool:
    """Whether a file is the receipt of an answer; another is taken for a bundle, which says what it lacks."""
    with suppress(FormatError):
        found = parse_json(data)
        return isinstance(found, dict) and "receipt" in found
    return False


def _check_receipt(data: bytes, roots: Roots, *, as_json: bool) -> int:
    try:
        bundle = parse_json(data)
        receipt, federation = checked_bundle(bundle)
    except (FormatError, IntegrityError) as error:
        result = {"ok": False, "consistent": False, "failures": [str(error)]}
        answer(result, [f"The receipt does not hold: {error}"], as_json=as_json)
        return 1
    # A server's word is rooted in its key; whose the federation is, is looked at where the reader says.
    rooted = roots.failures(federation) if roots.genesis or roots.address else []
    failures = [*roots.unsigned(receipt.server), *rooted]
    told = receipt.to_dict() | {"contract": federation.chain.contract, "request": bundle["request"]}
    result = judged(failures, told | {"answer": bundle["answer"]})
    lines = [
        f"The receipt is consistent in itself; {failures[0]}" if failures else "The receipt holds",
        f"Server   {receipt.server}",
        f"Run      {receipt.run}, base {receipt.base}",
        f"Adapter  {receipt.aggregate}",
    ]
    answer(result, lines, as_json=as_json)
    return 1 if failures else 0


def _check_verdict(data: bytes, roots: Roots, chain: str, *, as_json: bool) -> int:
    anchors: tuple[Anchor, ...] = ()
    try:
        bundle = Evidence.from_bytes(data)
        bundle.verified()
        if chain:
            anchors = bundle.anchored(open_ledger(chain, roots.state.folder, None, bundle.genesis.chain.contract))
    except (FormatError, IntegrityError) as error:
        result = {"ok": False, "consistent": False, "failures": [str(error)]}
        answer(result, [f"The evidence does not hold: {error}"], as_json=as_json)
        return 1
    failures = roots.failures(bundle.genesis.header)
    result = judged(failures, found := _content(bundle, anchors))
    rounds, transactions = (", ".join(map(str, found[of])) for of in ("rounds", "transactions"))
    verdict = f"{found['verdict']} ({found['organisation']})"
    lines = [
        f"The evidence is consistent in itself; {failures[0]}" if failures else f"The evidence holds: {verdict}",
        f"Verdict  {verdict}, {100 * found['confidence']:.0f} % confident by {found['method']}; "
        "attribute again to check scores",
        f"Rounds   {rounds} of run {found['run']}; "
        + (f"committed by {transactions}" if transactions else "the chain was not asked: --chain"),
    ]
    answer(result, lines, as_json=as_json)
    return 1 if failures else 0


def _content(bundle: Evidence, anchors: Sequence[Anchor]) -> dict[str, Any]:
    """The verdict and its trace; the rounds' transactions where the chain was asked."""
    trace, response = bundle.trace, bundle.trace.response
    (name,) = (o.name for o in bundle.genesis.everyone if o.address == response.verdict)
    return {
        "run": bundle.genesis.run,
        "genesis": bundle.genesis.digest,
        "contract": bundle.genesis.chain.contract,
        "verdict": name,
        "organisation": response.verdict,
        "confidence": response.confidence,
        "calibrated": response.calibrated,
        "method": trace.method,
        "prompt": trace.prompt,
        "text": trace.text,
        "aggregate": trace.aggregate,
        "trace": trace.digest,
        "rounds": [proof.signed.value.round for proof in bundle.proofs],
        "transactions": [anchor.transaction for anchor in anchors],
    }
