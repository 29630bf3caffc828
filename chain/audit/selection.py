"""Who was to be asked: policies are pure functions of the record, so that nobody is passed over in silence.

The bids of a round stand in the manifests of the one before and in its own record, credit beside the records.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from chain.audit.files import Files, RecordFile
from chain.audit.records import Head, RecordAudit
from chain.audit.report import Findings, What
from core.aggregation import by_address
from core.canonical import ZERO_DIGEST, Address, Digest
from core.config import CREDITED
from core.credit import CreditRecord
from core.genesis import Genesis
from core.policies import BY_HISTORY, READ_LOSSES, READ_SECONDS, bids_for, observations_of, selected
from core.rounds import RoundRecord
from core.storage.run_folder import credit_name


@dataclass
class SelectionAudit:
    """Compares the organisations that a round heard of with those that its policy asks."""

    genesis: Genesis
    files: Files
    findings: Findings
    records: RecordAudit
    credits: dict[Digest, dict[Address, float]] = field(default_factory=dict)
    """The mean credits of the rounds so far, by the digest of what is recorded."""

    def check(self, record: RoundRecord, line: Sequence[RoundRecord], head: Head, where: str) -> None:
        """Each organisation whose turn it was is admitted, rejected or late, once; `line` are the rounds before."""
        line = [earlier for earlier in line if earlier.round < record.round]
        self._check_offers(record, line, head, where)
        policy = self.genesis.policy(record.round)
        if policy in BY_HISTORY and len(line) != record.round - 1:
            return  # behind a gap, which is a finding of its own, nobody knows what the policy knew
        if len(head.failed) != record.attempt - 1:
            return  # nor who answered an attempt that is missing
        bids = bids_for(self.genesis, line[-1] if line else None, [s.value for s in record.bids], head.members)
        history = (
            [observations_of(earlier, self.credits.get(earlier.credit)) for earlier in line]
            if policy in BY_HISTORY
            else []
        )
        asked = selected(self.genesis, head.members, record.round, history, bids, head.failed)
        if sorted(record.heard) != sorted(asked):
            names = [", ".join(sorted(map(self.records.name, addresses))) for addresses in (record.heard, asked)]
            self.findings.fail(What.ASKED, where, *names)

    def check_measured(self, record: RoundRecord, file: RecordFile) -> None:
        """Credit, the bound of losses and seconds stand where the policy reads them, and nowhere else."""
        where, policy = f"{file.where}, {file.name}", self.genesis.participation.policy
        calibrates = self.genesis.training.calibrates(record.round)
        paid = policy in CREDITED and bool(record.admitted) and not calibrates
        self.findings.expect(What.CREDIT, where, record.credit != ZERO_DIGEST, paid)
        if record.credit != ZERO_DIGEST:
            self._check_credit(record)
        if record.loss_bound < 0 or (record.loss_bound and policy not in READ_LOSSES):
            self.findings.fail(What.MEASURED, where, f"losses up to {record.loss_bound}", "0, or a loss")
        for admitted in record.admitted:
            if admitted.seconds < 0 or (admitted.seconds and policy not in READ_SECONDS):
                self.findings.fail(What.MEASURED, where, f"{admitted.seconds} seconds", "0, or a time")

    def _check_credit(self, record: RoundRecord) -> None:
        """The credit that a record names lies beside it, and is that of the admitted."""
        name = credit_name(record.key)
        with self.findings.guard(What.CREDIT, name, "the credit that its record names"):
            credit = self.files.read(name, CreditRecord.from_dict)
            self.findings.expect(What.CREDIT, name, credit.digest, record.credit)
            paid, admitted = sorted(credit.incomes), sorted(a.organisation for a in record.admitted)
            self.findings.expect(What.CREDIT, name, paid, admitted)
            self.credits[credit.digest] = credit.credit.mean
            self.findings.checked["credits, not measured again"] += 1

    def _check_offers(self, record: RoundRecord, line: Sequence[RoundRecord], head: Head, where: str) -> None:
        """Each offer is its organisation's own, for this round, in order of address, and its only bid."""
        offers = [signed.value for signed in record.bids]
        order = [offer.organisation for offer in offers]
        known = bids_for(self.genesis, line[-1] if line else None, (), head.members)
        allowed = sorted((set(order) & set(head.members)) - set(known), key=by_address)
        if order != allowed:
            names = [", ".join(map(self.records.name, addresses)) for addresses in (order, allowed)]
            self.findings.fail(What.BID, where, *names)
        for signed in record.bids:
            own = f"{where}, {self.records.name(signed.value.organisation)}"
            self.findings.expect(What.BID, own, signed.value.key, record.key)
            with self.findings.guard(What.BID, own, f"a signature of {signed.value.organisation}"):
                signed.verified(self.genesis)
