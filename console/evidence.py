"""`foedus evidence`: whether a bundle that `foedus attribute --evidence` wrote holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.ledger import open_ledger
from console.options import JsonOption, StateOption, command_app, read_file, state_of
from console.roots import AddressOption, GenesisOption, Roots, judged
from console.views.tables import answer
from core.errors import FormatError, IntegrityError
from core.ledger import Anchor
from provenance.evidence import Evidence

app = command_app()


@app.command(epilog="Example: foedus evidence evidence.json --genesis 0x… --chain embedded")
def evidence(
    file: Annotated[Path, typer.Argument(help="The bundle.")],
    genesis: GenesisOption = "",
    address: AddressOption = "",
    chain: Annotated[str, typer.Option(help="Ask this chain too: embedded, anvil or an RPC URL.")] = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check the evidence of a verdict: signatures, lineage, Merkle proofs and verdict, and with --chain the anchors."""
    data = read_file("evidence", file, "a file of `foedus attribute --evidence`")
    folder = state_of(state)
    roots = Roots(genesis, address, folder)
    # A contract is a root by what it records: that has to be read.
    chain = chain or ("embedded" if address else "")
    anchors: tuple[Anchor, ...] = ()
    try:
        bundle = Evidence.from_bytes(data)
        bundle.verified()
        if chain:
            anchors = bundle.anchored(open_ledger(chain, folder.folder, None, bundle.genesis.chain.contract))
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
