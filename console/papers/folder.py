"""The papers of an export, written into its folder and signed with it."""

import json
from pathlib import Path

from console.papers import bill, statement
from console.papers.card import model_card
from console.papers.origin import Origin
from core.canonical import to_json
from core.model_signature import FileKey, file_digests


def write_papers(folder: Path, origin: Origin, signer: FileKey, family: str, rank: int = 0) -> None:
    """Write card, bill of materials, statement and signature beside an export's files.

    `family` is the base's architecture, `rank` the adapter's; 0 where it is merged.
    """
    weights = file_digests(folder)
    (folder / "README.md").write_text(model_card(origin, rank), encoding="utf-8")
    bom = json.dumps(bill.bill(origin, weights, family), indent=2, ensure_ascii=False)
    (folder / bill.FILE).write_text(bom + "\n", encoding="utf-8")
    # The statement is about the other papers, too; the signature then covers the statement.
    envelope = signer.envelope(statement.statement(origin, file_digests(folder)))
    (folder / statement.FILE).write_bytes(to_json(envelope) + b"\n")
    signer.sign_folder(folder)
