"""A commit queue's file, line by line, as the audit reads it.

The queue says which commitments were sent, and where on a chain each came to stand. It is evidence, not the truth: that
is the chain. Checks take from it the rounds that they know; a round that is left was never recorded.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Self

from chain.audit.files import Files
from chain.audit.report import Findings, What
from chain.commitments import Commitment, parse
from core.canonical import from_json
from core.errors import FormatError, IntegrityError
from core.keys import Domain
from core.ledger import Anchor
from core.round_key import RoundKey
from core.storage import jsonl


@dataclass
class QueueAudit(Generic[Commitment]):
    """The lines of a queue by round, each with its position for findings; a later anchor replaces an earlier."""

    name: str
    findings: Findings
    commitments: dict[RoundKey, tuple[str, Commitment]] = field(default_factory=dict)
    anchors: dict[RoundKey, tuple[str, Anchor]] = field(default_factory=dict)
    torn: bool = False
    """Whether the last line is incomplete, as a crash leaves it; opening the queue cuts it off."""

    @classmethod
    def read(cls, path: Path, kind: type[Commitment], findings: Findings) -> Self:
        """The queue in a file, empty when there is none; damaged lines are failures."""
        queue = cls(path.name, findings)
        with findings.guard(What.QUEUE, path.name, "a readable file"):
            lines = jsonl.read_lines(path)
            queue.torn = lines.torn
            for number, line in enumerate(lines.whole, start=1):
                where = f"{path.name}, line {number}"
                with findings.guard(What.QUEUE, where, "a commitment or an anchor"):
                    sent = _parse_line(line, kind)
                    if isinstance(sent, tuple):
                        queue.anchors[sent[0]] = where, sent[1]
                    elif sent.key in queue.commitments:
                        raise IntegrityError(f"another commitment to {sent.key}")
                    else:
                        queue.commitments[sent.key] = where, sent
        return queue

    def take_anchor(self, key: RoundKey, chain: Domain, where: str) -> tuple[str, Anchor] | None:
        """A round's anchor with its position, which must name the genesis's chain and contract; None without one."""
        if (entry := self.anchors.pop(key, None)) is None:
            return None
        where, anchor = f"{where}, {entry[0]}", entry[1]
        self.findings.expect(What.CHAIN_ID, where, anchor.chain_id, chain.chain_id)
        self.findings.expect(What.CONTRACT, where, anchor.contract, chain.contract)
        return where, anchor

    def check_receipt(self, taken: tuple[str, Anchor] | None, receipt: Anchor) -> None:
        """An anchor that was taken is the chain's receipt."""
        if taken and (taken[1].transaction, taken[1].block) != (receipt.transaction, receipt.block):
            got, want = (f"{anchor.transaction} in block {anchor.block}" for anchor in (taken[1], receipt))
            self.findings.fail(What.ANCHOR, taken[0], got, want)

    def check_end(self, files: Files, *, complete: bool) -> None:
        """Nothing was sent that no record speaks of, and a finished run left no line half-written."""
        if self.name in files:
            with self.findings.guard(What.QUEUE, self.name, "a file of the run"):
                files.take(self.name)
        for left in (self.commitments, self.anchors):
            for key, (where, _) in left.items():
                got = f"round {key.round}, lane {key.lane}"
                self.findings.fail(What.NOT_RECORDED, where, got, "a round that is recorded")
        if self.torn and complete:
            self.findings.fail(What.QUEUE, self.name, "a last line without an end", "whole lines")
        elif self.torn:
            self.findings.checked["torn lines"] += 1


def _parse_line(line: bytes, kind: type[Commitment]) -> Commitment | tuple[RoundKey, Anchor]:
    """A line of a queue; raises FormatError when it is neither such a commitment nor an anchor."""
    entry = from_json(line)
    sent: Commitment | tuple[RoundKey, Anchor]
    try:
        if not isinstance(sent := parse(entry), (kind, tuple)):
            raise FormatError("a commitment of the other queue")
        hash(sent)  # a list in place of a number would break the first comparison by key
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"malformed line: {error}") from error
    return sent
