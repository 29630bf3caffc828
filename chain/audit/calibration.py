"""The calibration of a run's verdicts: signed by its coordinator, for something that the run served.

Weights and threshold themselves are not fitted again: that takes the base model and the records. Whoever has both does
it with `foedus calibrate`.
"""

from collections.abc import Mapping, Sequence

from chain.audit.files import Files
from chain.audit.report import Findings, What
from core.calibration import Calibration, verified_calibration
from core.canonical import Address, Digest
from core.composition import composition_digest, shares
from core.errors import IntegrityError
from core.genesis import Genesis
from core.model_selection import served_round
from core.rounds import RoundRecord
from core.storage.run_folder import CALIBRATION

Lines = Mapping[int, tuple[Sequence[Address], Sequence[RoundRecord]]]
"""By lane the members of its current generation, and the rounds that it has grown through."""


def check_calibration(genesis: Genesis, files: Files, findings: Findings, lines: Lines) -> None:
    """A calibration, where there is one: its form, signature and members, and that its aggregate was served."""
    if CALIBRATION not in files:
        return
    findings.checked["calibrations"] += 1
    with findings.guard(What.CALIBRATION, CALIBRATION, "a calibration that the coordinator signed for this run"):
        calibration = verified_calibration(files.read_signed(CALIBRATION, Calibration), genesis)
        if calibration.aggregate not in ever_served(genesis, lines):
            raise IntegrityError(f"one of {calibration.aggregate}, which this run does not serve")
        members = {member for members, _ in lines.values() for member in members}
        if left := [named.organisation for named in calibration.records if named.organisation not in members]:
            raise IntegrityError(f"a record of {left[0]}, which is no member any more")


def ever_served(genesis: Genesis, lines: Lines) -> frozenset[Digest]:
    """What the lanes with members have served together, after each round of their lines."""
    learning = [(members, line) for members, line in lines.values() if members]
    if not learning:
        return frozenset()
    weighed = shares(genesis, [members for members, _ in learning])
    numbers = {record.round for _, line in learning for record in line}
    # A lane that has ended goes on serving what it served last.
    heads = ([[r for r in line if r.round <= number][-1:] for _, line in learning] for number in numbers)
    states = ([[served_round(genesis, head).aggregate for head in found] for found in of_round] for of_round in heads)
    return frozenset(
        composition_digest(genesis.composition, list(zip(weighed, (last for (last,) in found), strict=True)))
        for found in states
        if all(found)
    )
