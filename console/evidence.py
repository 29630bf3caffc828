"""`foedus evidence`: whether a bundle that `foedus attribute --evidence` wrote holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.ledger import open_ledger
from console.options import JsonOption, StateOption, command_app, read_file, state_of
from console.views.tables import answer
from core.errors import FormatError, IntegrityError
from core.ledger import Anchor
from provenance.evidence import Evidence

app = command_app()


@app.command(epilog="Example: foedus evidence evidence.json --chain embedded")
def evidence(
    file: Annotated[Path, typer.Argument(help="The bundle.")],
    chain: Annotated[str, typer.Option(help="Ask this chain too: embedded, anvil or an RPC URL.")] = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check the evidence of a verdict: signatures, lineage and Merkle proofs, and with --chain their commitments."""
    data = read_file("evidence", file, "a file of `foedus attribute --evidence`")
    anchors: tuple[Anchor, ...] = ()
    try:
        bundle = Evidence.from_bytes(data)
        bundle.verified()
        if chain:
            anchors = bundle.anchored(open_ledger(chain, state_of(state).folder, None, bundle.genesis.chain.contract))
    except (FormatError, IntegrityError) as error:
        answer({"ok": False, "failures": [str(error)]}, [f"The evidence does not hold: {error}"], as_json=as_json)
        return 1
    result = {"ok": True, "failures": [], **_content(bundle, anchors)}
    rounds, transactions = (", ".join(map(str, result[of])) for of in ("rounds", "transactions"))
    lines = [
        f"The evidence holds: {result['verdict']} ({result['organisation']})",
        f"Verdict  {100 * result['confidence']:.0f} % confident by {result['method']}; attribute again to check scores",
        f"Rounds   {rounds} of run {result['run']}; "
        + (f"committed by {transactions}" if transactions else "the chain was not asked: --chain"),
    ]
    answer(result, lines, as_json=as_json)
    return 0


def _content(bundle: Evidence, anchors: Sequence[Anchor]) -> dict[str, Any]:
    """The verdict and its trace; the rounds' transactions where the chain was asked."""
    trace, response = bundle.trace, bundle.trace.response
    (name,) = (o.name for o in bundle.genesis.organisations if o.address == response.verdict)
    return {
        "run": bundle.genesis.run,
        "verdict": name,
        "organisation": response.verdict,
        "confidence": response.confidence,
        "method": trace.method,
        "prompt": trace.prompt,
        "text": trace.text,
        "aggregate": trace.aggregate,
        "trace": trace.digest,
        "rounds": [proof.signed.value.round for proof in bundle.proofs],
        "transactions": [anchor.transaction for anchor in anchors],
    }
