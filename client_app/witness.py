"""Witness: an organisation's memory of its coordinator, checked against a ledger of its own choosing.

    sent           remember the manifest that was signed, before it is sent
    follow         the records and salts that lead from those shown before to the newest, as the coordinator shows them:
                   signed, the only record for its round, each growing from the one before, with the weights that the
                   genesis implies and the organisation's own manifest in it
    confirm        before training on: every record shown, up to the lag or of an earlier generation, stands on the
                   ledger as it was shown, and the ledger is that of the genesis, with its members

So a coordinator with two faces, or one that leaves out, swaps or reweighs an update, is caught, and the error names the
round. A witness has no other updates, so it cannot see whether the aggregate was computed rightly: an audit of the
artifacts does. A coordinator caught once is not believed again. Without a ledger the witness says that it trusts the
coordinator; a ledger that does not answer is one on which nothing stands yet.

The memory is a JSON Lines file of the organisation's own (core/storage/jsonl.py): a ClientApp lives for one message.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client_app.checks import check_ledger, check_weights
from core.canonical import Address, Digest
from core.errors import ForgeryError, IntegrityError, LedgerUnreachableError, LostMemoryError, ObjectionError
from core.generations import GenerationRecord, check_members
from core.genesis import Genesis
from core.ledger import LedgerView
from core.model_selection import best_of
from core.parsing import parsed
from core.round_key import RoundKey
from core.rounds import Best, RoundRecord, Salts, ShownRecord, commit_to
from core.signed import Signed
from core.storage import jsonl
from core.update import UpdateManifest

_MOST_ATTEMPTS = 100
"""A round is tried again up to 98 times."""
_MOST_GENERATIONS = 1000
"""Of a lane: each opens with an erasure."""


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
        missing = "; ".join(map(str, self.behind))
        return f"not on the ledger: {missing}" if missing else "everything due is on the ledger"


@dataclass(frozen=True)
class _ShownRound:
    """A round as the coordinator showed it, in the form that the ledger has."""

    key: RoundKey
    record: Digest
    parent: Digest
    updates_root: Digest
    aggregate: Digest
    count: int
    best: Best | None


@dataclass(frozen=True)
class _Opened:
    """What opened a generation of a lane: the record's digest, and the round that it grows from."""

    lane: int
    generation: int
    record: Digest
    parent_generation: int
    parent_round: int


def has_sent(path: Path) -> bool:
    """Whether an organisation has sent an update in the federation of which it keeps a memory at `path`."""
    return any("sent" in entry for entry in jsonl.read(path))


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
        self._updates: dict[RoundKey, set[Digest]] = {}
        self._lost: set[Digest] = set()
        """The own updates of which it knows by its signature alone."""
        self._shown: dict[RoundKey, _ShownRound] = {}
        self._opened: dict[tuple[int, int], _Opened] = {}
        self._confirmed: set[RoundKey] = set()
        self._known_ledger = False
        self._caught = ""
        jsonl.read_as(path, self._remember)

    def sent(self, signed: Signed[UpdateManifest]) -> None:
        """Remember an own manifest; call it before it is sent."""
        manifest = signed.value
        self._write({"sent": asdict(manifest.key), "manifest": manifest.digest, "update": manifest.update})

    def check_open(self, key: RoundKey) -> None:
        """Check that a round is still to be trained.

        Raises ObjectionError for a round whose record the organisation was shown, for one of a generation that is over,
        and for one that it has trained for so often that its memory would only grow.
        """
        if key in self._shown:
            raise ObjectionError(f"{key}: it is closed, as its record was shown before")
        # In it a key that was replaced, and whoever has stolen that, would count again.
        if key.generation < (newest := self._newest(key.lane)):
            raise ObjectionError(f"{key}: its generation is over, as generation {newest} was shown before")
        if len(self._sent.get(key, ())) >= _MOST_ATTEMPTS:
            raise ObjectionError(f"{key}: expected at most {_MOST_ATTEMPTS} attempts, got more")

    def follow(self, shown: Sequence[ShownRecord], openings: Sequence[Signed[GenerationRecord]] = ()) -> None:
        """Check and remember what opened a lane's generations, and the records that lead to its newest, in order.

        Whoever remembers nothing of the lane begins with the newest. Raises as `check_record` does, and once
        LostMemoryError for own updates that it has signed and does not remember.
        """
        self._open(openings)
        known = bool(shown) and self._remembers(shown[0].record.value.lane)
        to_check = shown if known else shown[-1:]
        self._recall([each.record.verified(self._genesis) for each in to_check])
        for each in to_check:
            self.check_record(each.record, each.salts)

    def check_record(self, signed: Signed[RoundRecord], salts: Salts) -> RoundRecord:
        """Check and remember a round's record as the coordinator shows it; once more changes nothing.

        Raises ForgeryError when the coordinator did not sign it, IntegrityError for everything else that does not hold,
        now or in an earlier round.
        """
        record = signed.verified(self._genesis)
        if self._caught:
            raise ObjectionError(self._caught)
        if record.admitted:
            self._check_line(record.key)
            self._check_linked(record)
        try:
            # An empty round never reaches a ledger and is tried again, so there is nothing of it to remember.
            if record.admitted:
                self._compare(record, salts)
            else:
                self._check_own_update(record)
        except IntegrityError as error:
            self._write({"caught": str(error)})
            raise
        return record

    def confirm_all(self) -> Standing:
        """Check every round that was shown, the last ones too, and those that stood on the ledger before.

        A round may be on its way to the ledger: what is missing is missing until the coordinator's queue is empty.
        Raises as `confirm` does, and LedgerUnreachableError where that reports what is due.
        """
        if self._ledger is None:
            return Standing(trusting=True)
        check_ledger(self._ledger, self._genesis)
        behind = [key for key in sorted(self._shown) if not self._stands(self._ledger, key)]
        return Standing(trusting=False, behind=tuple(behind))

    @property
    def trained(self) -> Mapping[RoundKey, int]:
        """The rounds that own updates were sent for, and how many different ones."""
        return {key: len(updates) for key, updates in self._updates.items()}

    @property
    def caught(self) -> str:
        """Why the coordinator is not believed any more; empty while it is."""
        return self._caught

    @property
    def rounds(self) -> int:
        """How many rounds were shown."""
        return len(self._shown)

    def check_parent(self, manifest: UpdateManifest) -> None:
        """Check that an own manifest grows from a record that was shown, or from the genesis in round 1.

        Raises ObjectionError: whoever remembers nothing of a history must not sign for it.
        """
        if self._caught:
            raise ObjectionError(self._caught)
        lanes, last = self._genesis.lanes_of(self._organisation), self._genesis.training.most(manifest.generation)
        if manifest.lane not in lanes or not 0 < manifest.round <= last:
            raise ObjectionError(
                f"{manifest.key}: expected a round up to {last} of lane {' or '.join(map(str, lanes))}"
            )
        if manifest.parent != self._before(manifest.key):
            raise ObjectionError(f"{manifest.key}: its parent {manifest.parent} is no record that was shown before it")

    def confirm(self, lane: int, generation: int, round_number: int) -> Standing:
        """Check the ledger before training `round_number`, for rounds up to the lag, and all of earlier generations.

        Raises IntegrityError when the ledger has another round than was shown, is not the one of the genesis, or knows
        the run with other members.
        """
        if self._ledger is None:
            return Standing(trusting=True)
        # A generation opens when all before it is on the ledger: no rounds of one are too few to be due.
        last = generation, round_number - 1 - self._lag
        due = [
            key
            for key in sorted(self._shown.keys() - self._confirmed)
            if key.lane == lane and (key.generation, key.round) <= last
        ]
        # A ledger that does not answer must not stop the training: its rounds are reported as missing.
        with suppress(LedgerUnreachableError):
            if not self._known_ledger:
                check_ledger(self._ledger, self._genesis)
                self._write({"ledger": asdict(self._genesis.chain)})
            for key in due:
                if self._stands(self._ledger, key):
                    self._write({"confirmed": asdict(key)})
        return Standing(trusting=False, behind=tuple(key for key in due if key not in self._confirmed))

    def _stands(self, ledger: LedgerView, key: RoundKey) -> bool:
        """Whether a round is on the ledger; raises ObjectionError when another is than was shown."""
        if (committed := ledger.read(key)) is None:
            return False
        shown = self._shown[key]
        for name in ("aggregate", "updates_root", "count"):
            if (got := getattr(committed[0], name)) != (expected := getattr(shown, name)):
                raise ObjectionError(f"{key}: the ledger has {name} {got}, shown before was {expected}")
        return True

    def _compare(self, record: RoundRecord, salts: Salts) -> None:
        """Check a record against the memory; a round is checked and remembered the first time it is shown."""
        commitment = commit_to(record, salts)
        digests = record.digest, record.parent, commitment.updates_root, commitment.aggregate
        shown = _ShownRound(record.key, *digests, commitment.count, record.best)
        if known := self._shown.get(record.key):
            if known != shown:
                raise ObjectionError(f"{record.key}: the coordinator has shown two records")
            return
        before = self._before(record.key)
        if before and record.parent != before:
            raise ObjectionError(f"{record.key}: expected parent {before}, as shown before, got {record.parent}")
        # A record may be shown after one that grows from it, or does not.
        after = self._shown.get(RoundKey(record.genesis, record.lane, record.generation, record.round + 1))
        if after and after.parent != record.digest:
            raise ObjectionError(f"{after.key}: expected parent {record.digest}, as shown now, got {after.parent}")
        check_weights(record, self._genesis)
        place = self._key_before(record.key)
        earlier = self._shown.get(place) if place else None
        # Of a record that is the first one shown, what came before is unknown.
        unknown = place is not None and earlier is None
        follows = unknown or record.best == best_of(record, earlier.best if earlier else None)
        if not follows or (record.best is not None) != self._genesis.compares_rounds:
            raise ObjectionError(f"{record.key}: its best round does not follow from those shown, got {record.best}")
        self._check_own_update(record)
        self._write({"shown": asdict(shown)})

    def _open(self, openings: Sequence[Signed[GenerationRecord]]) -> None:
        """Check and remember what opened a lane's generations: one record for each, signed by the coordinator."""
        check_members(self._genesis, [signed.value for signed in openings])
        for signed in openings:
            opening, key = signed.value, (signed.value.lane, signed.value.generation)
            opened = _Opened(*key, opening.digest, opening.parent_generation, opening.parent_round)
            if (known := self._opened.get(key)) == opened:
                continue
            signed.verified(self._genesis)
            if opening.generation > _MOST_GENERATIONS:
                raise ObjectionError(f"generation: expected at most {_MOST_GENERATIONS}, got {opening.generation}")
            what = f"generation {opening.generation} of lane {opening.lane}: the coordinator has opened it twice"
            self._write({"caught": what} if known else {"opened": asdict(opened)})
        if self._caught:
            raise ObjectionError(self._caught)

    def _newest(self, lane: int) -> int:
        """The newest generation of a lane: by what opened it, or by a change of members that is to open it."""
        places = *self._opened, *(signed.value.place for signed in self._genesis.memberships)
        return max((generation for where, generation in places if where == lane), default=0)

    def _check_line(self, key: RoundKey) -> None:
        """Check that a record which was not shown before is of the newest generation, or of those that it grows from.

        As far as it was shown what opened them. Raises ObjectionError.
        """
        generation = max(self._newest(key.lane), key.generation)
        while generation > key.generation and (opened := self._opened.get((key.lane, generation))):
            if key.round > opened.parent_round and key not in self._shown:
                raise ObjectionError(f"{key}: expected a record that generation {generation} grows from, got another")
            generation = opened.parent_generation

    def _check_linked(self, record: RoundRecord) -> None:
        """Check that a record follows or leads to one that was shown: what lies between could be another history."""
        following = RoundKey(record.genesis, record.lane, record.generation, record.round + 1)
        if self._before(record.key) or {record.key, following} & self._shown.keys():
            return
        own = (a.signed.value for a in record.admitted if a.organisation == self._organisation)
        # By its signature it has vouched for that parent, when it still knew what lies between.
        if any(manifest.digest in self._lost and manifest.parent == record.parent for manifest in own):
            return
        if self._remembers(record.lane):
            raise ObjectionError(f"{record.key}: expected the record of every round since the last shown, got a gap")

    def _before(self, key: RoundKey) -> Digest | None:
        """The record that a round grows from, as it was shown; None where that was not; raises as `_key_before`."""
        earlier = self._key_before(key)
        if earlier is None:
            return self._genesis.digest
        before = self._shown.get(earlier)
        return before.record if before else None

    def _key_before(self, key: RoundKey) -> RoundKey | None:
        """The round that a round grows from; None for the beginning.

        Raises ObjectionError for a generation of which it was not shown what opened it.
        """
        generation, opened = key.generation, self._opened.get((key.lane, key.generation))
        if generation and not opened:
            raise ObjectionError(f"{key}: the record that opened its generation was not shown")
        first = opened.parent_round + 1 if opened else 1
        if key.round == first == 1:
            return None
        if opened and key.round == first:
            generation = opened.parent_generation
        return RoundKey(key.genesis, key.lane, generation, key.round - 1)

    def _remembers(self, lane: int) -> bool:
        """Whether it was shown a record of a lane, or has sent an update for one."""
        return any(key.lane == lane for key in (*self._shown, *self._sent))

    def _recall(self, records: Iterable[RoundRecord]) -> None:
        """Take note of own updates in rounds behind all that it remembers of a lane: it has signed them.

        A memory of yesterday has lost what came last. Raises LostMemoryError once, since another may have its key.
        """
        forgotten = []
        for own in (a.signed for r in records for a in r.admitted if a.organisation == self._organisation):
            key = own.value.key
            known = ((k.generation, k.round) for k in (*self._shown, *self._sent) if k.lane == key.lane)
            with suppress(ForgeryError):  # which is held against the coordinator
                if all(place < (key.generation, key.round) for place in known):
                    forgotten.append(own.verified(self._genesis))
        for manifest in forgotten:
            self._write({"lost": asdict(manifest.key), "manifest": manifest.digest, "update": manifest.update})
        if forgotten:
            raise LostMemoryError(
                f"{forgotten[0].key}: {self._organisation} has signed an update in it and remembers none: its memory "
                "was lost, or another has its key. It says so once, and goes on"
            )

    def _check_own_update(self, record: RoundRecord) -> None:
        """The organisation's update is in the record: admitted as it was sent, rejected with a reason, or late."""
        sent = self._sent.get(record.key, [])
        own = [a.signed for a in record.admitted if a.organisation == self._organisation]
        # A re-aggregated round admits the manifest of the round in which it was sent.
        if own and own[0].value.digest not in self._sent.get(own[0].value.key, []):
            own[0].verified(self._genesis)
            raise ObjectionError(f"{record.key}: admits an update of {self._organisation} that it did not send")
        if own and own[0].value.lane != record.lane:
            raise ObjectionError(f"{record.key}: admits an update of {self._organisation} of lane {own[0].value.lane}")
        # Rejected with a reason, or on its way when the round closed: a late update of the round before is no answer.
        if sent and not own and self._organisation not in record.heard:
            raise ObjectionError(f"{record.key}: leaves out the update that {self._organisation} sent")

    def _remember(self, entry: dict[str, Any]) -> None:
        if "sent" in entry or "lost" in entry:
            key, manifest = RoundKey.from_dict(entry.get("sent") or entry["lost"]), Digest(entry["manifest"])
            self._sent.setdefault(key, []).append(manifest)
            self._updates.setdefault(key, set()).add(Digest(entry["update"]))
            self._lost |= {manifest} if "lost" in entry else set()
        elif "shown" in entry:
            nested = {"key": RoundKey.from_dict, "best": lambda best: parsed(Best, best, {}) if best else None}
            shown = parsed(_ShownRound, entry["shown"], nested, "round that was shown")
            self._shown[shown.key] = shown
        elif "opened" in entry:
            opened = parsed(_Opened, entry["opened"], {}, "generation that was opened")
            self._opened[opened.lane, opened.generation] = opened
        elif "confirmed" in entry:
            self._confirmed.add(RoundKey.from_dict(entry["confirmed"]))
        elif "caught" in entry:
            self._caught = entry["caught"]
        else:
            self._known_ledger = True

    def _write(self, entry: dict[str, Any]) -> None:
        # On disk first: what the organisation has sent or seen must outlive a crash of this process.
        jsonl.append(self._path, entry)
        self._remember(entry)
