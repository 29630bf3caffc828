"""The epochs of credit: the amounts behind every root on the ledger, by which organisations claim what they earned.

What a round was worth is not measured again. The newest amounts are what the rounds of the run's lines have paid, as
their credits say.
"""

from collections.abc import Sequence
from itertools import count

from chain.audit.files import Files
from chain.audit.ledger import LedgerAudit
from chain.audit.report import What
from core.canonical import ZERO_DIGEST
from core.credit import CreditRecord, CreditTree, added
from core.errors import FoedusError, IntegrityError
from core.genesis import Genesis
from core.rounds import RoundRecord
from core.storage.run_folder import credit_name, epoch_name


def check_epochs(ledger: LedgerAudit, lines: Sequence[Sequence[RoundRecord]]) -> None:
    """Every epoch that the ledger has lies with the run, and every one of the run's is the ledger's or the next.

    `lines` are the rounds that each lane's current generation has grown through.
    """
    files, findings, tree = ledger.files, ledger.findings, None
    for number in count(1):
        name, root = epoch_name(number), ledger.credit_root(number)
        if name not in files:
            if root:
                findings.fail(What.CREDIT, name, "none", f"the amounts behind the root {root}, which was posted")
            break
        with findings.guard(What.CREDIT, name, f"the amounts of epoch {number}, of members of the run"):
            tree = files.read(name, CreditTree.from_dict)
            members = {member.address for member in ledger.genesis.everyone}
            if tree.run != ledger.digest or not tree.cumulative.keys() <= members:
                raise IntegrityError(f"amounts of run {tree.run}, of {', '.join(tree.cumulative)}")
            findings.checked["credit epochs"] += 1
            if root:
                findings.expect(What.CREDIT, name, tree.root, root)
    if tree and ledger.strict and (paid := _paid(files, ledger.genesis, lines)):
        findings.expect(What.CREDIT, "the newest epoch", tree.root, paid.root)


def _paid(files: Files, genesis: Genesis, lines: Sequence[Sequence[RoundRecord]]) -> CreditTree | None:
    """What the rounds have paid; None where a credit cannot be read, which is a finding of its own."""
    calibrates = genesis.training.calibrates
    paying = [r for line in lines for r in line if r.credit != ZERO_DIGEST and not calibrates(r.round)]
    try:
        credits = [files.read(credit_name(record.key), CreditRecord.from_dict) for record in paying]
    except (FoedusError, OSError):
        return None
    return CreditTree.of(genesis.digest, added(credit.incomes for credit in credits))
