"""What of a run may be pruned: aggregates that anybody computes again, bit for bit, from the updates that stay.

A lane's state is kept where something begins with it or is served from it: of the newest rounds; of the round before an
organisation's first update, where an erasure would begin anew; around a round whose credit is measured; and wherever
another document of the run names it.
Updates, records, salts, receipts and anchors are never pruned: without them a round could not be computed again, an
organisation not be erased, and no token be traced.
"""

import re
from collections.abc import Iterator

from core.aggregation import RULES, Svd
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import UsageError
from core.storage.run_folder import RunFolder

FEWEST_KEPT = 2
"""The newest rounds of a lane, without which it could not go on: credit is measured from the last but one."""
_DIGEST = re.compile(rb"0x[0-9a-f]{64}")


def prunable(run: RunFolder, keep: int) -> frozenset[Digest]:
    """The aggregates that may go where the newest `keep` rounds of every lane stay.

    Raises UsageError for a run of whose aggregates none can be computed again and compared by its digest.
    """
    genesis = run.genesis
    if keep < FEWEST_KEPT:
        raise UsageError(f"--keep: expected {FEWEST_KEPT} rounds or more, got {keep}: a lane goes on from them")
    if isinstance(RULES[genesis.rule], Svd):
        raise UsageError("expected a rule that gives the same bytes everywhere, got svd: its aggregates are evidence")
    if genesis.compares_rounds or genesis.robust.rule == "validation":
        raise UsageError("expected rounds that are not measured by their state, got ones that are: states are evidence")
    old: set[Digest] = set()
    needed = {genesis.shared_a, *_named_elsewhere(run)}
    for lane in range(len(genesis.lanes)):
        line = [signed.value for signed in run.lineage(lane)]
        old |= {record.aggregate for record in line[:-keep]}
        needed |= {record.aggregate for record in line[-keep:]}
        # A generation begins with the state of the round that it grows from.
        parents = {signed.value.parent for signed in run.generations(lane).values()}
        seen: set[Address] = set()
        for index, record in enumerate(line):
            members = {admitted.organisation for admitted in record.admitted}
            if record.digest in parents:
                needed.add(record.aggregate)
            if record.credit != ZERO_DIGEST:  # credit is measured again from the states around a round
                needed |= {one.aggregate for one in line[max(index - 2, 0) : index + 1]}
            if index and members - seen:
                needed.add(line[index - 1].aggregate)
            seen |= members
    # A state may be an update, too: that of a lane's only member.
    needed |= {admitted.signed.value.update for signed in run.records() for admitted in signed.value.admitted}
    return frozenset(old - needed)


def _named_elsewhere(run: RunFolder) -> Iterator[Digest]:
    """Every digest in what opens a generation, in what erasures leave, and in the calibration."""
    folders = ("generations", "erasures", "certificates")
    for path in (*run.folder.glob("calibration.json"), *(p for name in folders for p in (run.folder / name).glob("*"))):
        yield from (Digest(found.decode()) for found in _DIGEST.findall(path.read_bytes()))
