"""`foedus evidence`: whether a bundle that `foedus attribute --evidence` wrote holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.ledger import open_ledger
from console.options import JsonOption, StateOption, answer, read_file, state_of
from core.errors import FormatError, IntegrityError
from core.ledger import Anchor
from provenance.evidence import Evidence


def evidence(
    file: Annotated[Path, typer.Argument(help="The bundle.")],
    chain: Annotated[str, typer.Option(help="Ask this chain too: embedded, anvil or an RPC URL.")] = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check the evidence of a verdict: signatures, lineage and Merkle proofs, and with --chain their commitments."""
    data = read_file("evidence", file, "a file of `foedus attribute --evidence`")
    try:
        bundle = Evidence.from_bytes(data)
        bundle.verified()
        anchors = _anchors(bundle, chain, state) if chain else ()
    except (FormatError, IntegrityError) as error:
        answer({"ok": False, "failures": [str(error)]}, [f"The evidence does not hold: {error}"], as_json)
        return 1
    answer({"ok": True, "failures": [], **_said(bundle, anchors)}, _lines(bundle, anchors), as_json)
    return 0


def _anchors(bundle: Evidence, chain: str, state: Path | None) -> tuple[Anchor, ...]:
    contract = bundle.genesis.chain.contract
    return bundle.anchored(open_ledger(chain, state_of(state).folder, None, contract))


def _said(bundle: Evidence, anchors: Sequence[Anchor]) -> dict[str, Any]:
    """What the evidence is of; the rounds' transactions where the chain was asked."""
    return {
        "run": bundle.genesis.run,
        "verdict": _name(bundle),
        "organisation": bundle.trace.response.verdict,
        "confidence": bundle.trace.response.confidence,
        "method": bundle.trace.method,
        "prompt": bundle.trace.prompt,
        "text": bundle.trace.text,
        "aggregate": bundle.trace.aggregate,
        "trace": bundle.trace.digest,
        "rounds": [proof.signed.value.round for proof in bundle.proofs],
        "transactions": [anchor.transaction for anchor in anchors],
    }


def _name(bundle: Evidence) -> str:
    (name,) = (o.name for o in bundle.genesis.organisations if o.address == bundle.trace.response.verdict)
    return name


def _lines(bundle: Evidence, anchors: Sequence[Anchor]) -> list[str]:
    rounds = ", ".join(str(proof.signed.value.round) for proof in bundle.proofs)
    where = (
        f"committed by {', '.join(a.transaction for a in anchors)}" if anchors else "the chain was not asked: --chain"
    )
    return [
        f"The evidence holds: {_name(bundle)} ({bundle.trace.response.verdict})",
        f"Verdict  {100 * bundle.trace.response.confidence:.0f} % confident by {bundle.trace.method}; the scores are "
        "checked by attributing again",
        f"Rounds   {rounds} of run {bundle.genesis.run}; {where}",
    ]
