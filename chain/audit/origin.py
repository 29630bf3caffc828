"""The run that another goes on from, where both lie in one state folder."""

from chain.audit.report import Findings, What
from core.errors import IntegrityError
from core.genesis import Genesis
from core.model_selection import served_round
from core.storage.run_folder import RunFolder


def check_origin(run: RunFolder, genesis: Genesis, findings: Findings) -> None:
    """The former run has signed the record that the genesis names, served its state by it, and drawn the same A.

    Where it is not here there is nothing to compare: the genesis names its state, and whoever has that run verifies it.
    """
    if (origin := genesis.origin) is None:
        return
    where = f"genesis.json, {origin.name}"
    with findings.guard(What.ORIGIN, where, "a record that its coordinator signed"):
        if (former := run.former) is None:
            return
        known = next((signed for signed in former.records() if signed.value.digest == origin.record), None)
        if known is None:
            raise IntegrityError(f"no record {origin.record}")
        record = known.verified(former.genesis)
        findings.expect(What.ORIGIN, where, origin.state, served_round(former.genesis, record).aggregate)
        drawn = former.genesis.shared_a, former.genesis.shared_seed
        findings.expect(What.ORIGIN, where, (genesis.shared_a, origin.seed), drawn)
        findings.checked["former runs"] += 1
