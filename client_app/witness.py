"""Witness: an organisation's memory of its coordinator, checked against a ledger of its own choosing.

    sent           remember the manifest that was signed, before it is sent
    check_record   a round's record and salts, as the coordinator shows them: signed, the only record for its round,
                   growing from the one shown before, with the weights that the genesis implies and the organisation's
                   own manifest in it
    confirm        before training on: every record shown, up to the lag, stands on the ledger as it was shown, and the
                   ledger is that of the genesis, with its members

So a coordinator with two faces, or one that leaves out, swaps or reweighs an update, is caught, and the error names the
round. A witness has no other updates, so it cannot see whether the aggregate was computed rightly: an audit of the
artifacts does. A coordinator caught once is not believed again. Without a ledger the witness says that it trusts the
coordinator; a ledger that does not answer is one on which nothing stands yet.

The memory is a file of the organisation's own, one canonical JSON object a line, fsynced: a ClientApp lives for one
message. A torn last line is cut off.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from core.aggregation import weights
from core.canonical import Address, Digest, from_json, to_json
from core.errors import FormatError, IntegrityError, LedgerUnreachableError
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.ledger import LedgerView
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts, commit_to
from core.signed import Signed
from core.update import UpdateManifest


@dataclass(frozen=True)
class Standing:
    """A coordinator's standing with a witness before a round.

    `trusting`: there is no ledger, and the coordinator is believed. `behind`: rounds that should be on the ledger by
    now and are not; whether to train on regardless is the organisation's choice.
    """

    trusting: bool
    behind: tuple[RoundKey, ...] = ()

    def __str__(self) -> str:
        if self.trusting:
            return "there is no ledger to check"
        missing = "; ".join(map(_name, self.behind))
        return f"not on the ledger: {missing}" if missing else "everything due is on the ledger"


@dataclass(frozen=True)
class _ShownRound:
    """A round as the coordinator showed it, in the form that the ledger has."""

    key: RoundKey
    record: Digest
    updates_root: Digest
    aggregate: Digest
    count: int


class Witness:
    """One organisation's memory of one federation; its messages are handled one at a time, by any process."""

    def __init__(
        self, path: Path, genesis: Genesis, organisation: Address, ledger: LedgerView | None, lag: int = 1
    ) -> None:
        """Open or create the memory at `path`; `lag`: how many rounds anchors may be late.

        Raises IntegrityError when the memory is damaged.
        """
        self._path = path
        self._genesis = genesis
        self._organisation = organisation
        self._ledger = ledger
        self._lag = lag
        self._sent: dict[RoundKey, list[Digest]] = {}
        self._shown: dict[RoundKey, _ShownRound] = {}
        self._confirmed: set[RoundKey] = set()
        self._known_ledger = False
        self._caught = ""
        for entry in self._entries():
            self._remember(entry)

    def sent(self, signed: Signed[UpdateManifest]) -> None:
        """Remember an own manifest; call it before it is sent."""
        self._write({"sent": asdict(_place(signed)), "manifest": signed.value.digest})

    def check_record(
        self, signed: Signed[RoundRecord], salts: Salts, openings: Sequence[Signed[GenerationRecord]] = ()
    ) -> RoundRecord:
        """Check and remember a round's record as the coordinator shows it; once more changes nothing.

        `openings` are the records that opened the lane's generations, in order.
        An attempt that admitted nothing never reaches a ledger and is not remembered: the round is tried again.
        Raises ForgeryError when the coordinator did not sign it, IntegrityError for everything else that does not hold,
        now or in an earlier round.
        """
        record = signed.verified(self._genesis)
        try:
            self._check_shown(record, salts, openings)
        except IntegrityError as error:
            if not self._caught:
                self._write({"caught": str(error)})
            raise
        return record

    def _check_shown(self, record: RoundRecord, salts: Salts, openings: Sequence[Signed[GenerationRecord]]) -> None:
        if self._caught:
            raise IntegrityError(self._caught)
        if not record.admitted:
            self._check_own_update(record)
            return
        commitment = commit_to(record, salts)
        shown = _ShownRound(record.key, record.digest, commitment.updates_root, commitment.aggregate, commitment.count)
        known = self._shown.get(record.key)
        if known is None:
            self._check_parent(record, openings)
            self._check_weights(record)
            self._check_own_update(record)
            self._write({"shown": asdict(shown)})
        elif known != shown:
            raise IntegrityError(f"{_name(record.key)}: the coordinator has shown two records")

    def confirm(self, lane: int, generation: int, round_number: int) -> Standing:
        """Check what stands on the ledger before training `round_number`.

        Raises IntegrityError when the ledger has another round than was shown, is not the one of the genesis, or knows
        the run with other members.
        """
        if self._ledger is None:
            return Standing(trusting=True)
        due = [
            key
            for key in sorted(self._shown.keys() - self._confirmed)
            if (key.lane, key.generation) == (lane, generation) and key.round <= round_number - 1 - self._lag
        ]
        with suppress(LedgerUnreachableError):
            self._check_ledger(self._ledger)
            for key in due:
                self._confirm(self._ledger, key)
        return Standing(trusting=False, behind=tuple(key for key in due if key not in self._confirmed))

    def _confirm(self, ledger: LedgerView, key: RoundKey) -> None:
        """Remember a shown round that is on the ledger; raises IntegrityError when another one is."""
        found = ledger.read(key)
        if found is None:
            return
        on_ledger, shown = found[0], self._shown[key]
        for name in ("aggregate", "updates_root", "count"):
            if (got := getattr(on_ledger, name)) != (expected := getattr(shown, name)):
                raise IntegrityError(f"{_name(key)}: the ledger has {name} {got}, the coordinator has shown {expected}")
        self._write({"confirmed": asdict(key)})

    def _check_ledger(self, ledger: LedgerView) -> None:
        """Check, once for all rounds, that the ledger is the federation's."""
        if self._known_ledger:
            return
        expected = self._genesis.chain
        if (ledger.chain_id, ledger.contract) != (expected.chain_id, expected.contract):
            raise IntegrityError(
                f"ledger: expected {expected.contract} on chain {expected.chain_id}, "
                f"got {ledger.contract} on chain {ledger.chain_id}"
            )
        members = ledger.members(self._genesis.digest)
        if members != {organisation.address for organisation in self._genesis.organisations}:
            raise IntegrityError(f"the ledger knows run {self._genesis.digest} with other members: {sorted(members)}")
        self._write({"ledger": asdict(expected)})

    def _check_parent(self, record: RoundRecord, openings: Sequence[Signed[GenerationRecord]]) -> None:
        """A record grows from the last one shown of its lane's line, if there is one."""
        generation = record.generation
        if generation:
            opening = self._opening(record, openings)
            generation = opening.parent_generation if record.round == opening.parent_round + 1 else generation
        before = self._shown.get(RoundKey(record.genesis, record.lane, generation, record.round - 1))
        if before and record.parent != before.record:
            raise IntegrityError(
                f"{_name(record.key)}: expected parent {before.record}, as shown before, got {record.parent}"
            )

    def _opening(self, record: RoundRecord, openings: Sequence[Signed[GenerationRecord]]) -> GenerationRecord:
        """The record that opened a round's generation; raises IntegrityError when it was not shown."""
        for signed in openings[record.generation - 1 : record.generation]:
            opening = signed.verified(self._genesis)
            if (opening.lane, opening.generation) == (record.lane, record.generation):
                return opening
        raise IntegrityError(f"{_name(record.key)}: the record that opened its generation was not shown")

    def _check_weights(self, record: RoundRecord) -> None:
        examples = self._genesis.examples
        members = [admitted.organisation for admitted in record.admitted]
        if strangers := [member for member in members if member not in examples]:
            raise IntegrityError(f"{_name(record.key)}: admits {strangers[0]}, which is no member")
        shares = weights({member: examples[member] for member in members})
        for admitted in record.admitted:
            if admitted.weight != (expected := shares[admitted.organisation]):
                raise IntegrityError(
                    f"{_name(record.key)}: the weight of {admitted.organisation}: expected {expected}, "
                    f"got {admitted.weight}"
                )

    def _check_own_update(self, record: RoundRecord) -> None:
        """The organisation's update is in the record: admitted as it was sent, or rejected with a reason."""
        sent = self._sent.get(record.key, [])
        own = [a.signed for a in record.admitted if a.organisation == self._organisation]
        if own and own[0].value.digest not in self._sent.get(_place(own[0]), []):
            raise IntegrityError(f"{_name(record.key)}: admits an update of {self._organisation} that it did not send")
        rejected = any(rejection.organisation == self._organisation for rejection in record.rejected)
        if sent and not own and not rejected:
            raise IntegrityError(f"{_name(record.key)}: leaves out the update that {self._organisation} sent")

    def _remember(self, entry: dict[str, Any]) -> None:
        if "sent" in entry:
            self._sent.setdefault(RoundKey(**entry["sent"]), []).append(Digest(entry["manifest"]))
        elif "shown" in entry:
            shown = _ShownRound(**{**entry["shown"], "key": RoundKey(**entry["shown"]["key"])})
            self._shown[shown.key] = shown
        elif "confirmed" in entry:
            self._confirmed.add(RoundKey(**entry["confirmed"]))
        elif "caught" in entry:
            self._caught = entry["caught"]
        else:
            self._known_ledger = True

    def _write(self, entry: dict[str, Any]) -> None:
        with self._locked() as file:
            file.write(to_json(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._remember(entry)

    def _entries(self) -> Iterator[dict[str, Any]]:
        with self._locked() as file:
            file.seek(0)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                yield from_json(line)
            except FormatError as error:
                raise IntegrityError(f"line {number} of {self._path} is damaged: {error}") from error

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, for one writer: a message that was given up may still be worked on by another process."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def _place(signed: Signed[UpdateManifest]) -> RoundKey:
    """The round that a manifest was made for; one that was summed again stands in a later generation."""
    manifest = signed.value
    return RoundKey(manifest.genesis, manifest.lane, manifest.generation, manifest.round)


def _name(key: RoundKey) -> str:
    return f"round {key.round} of lane {key.lane}, generation {key.generation}"
