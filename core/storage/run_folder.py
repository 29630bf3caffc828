"""A run on disk: genesis, records, salts, anchors and sealed artifacts. What is written stays, but for two files.

    RUN/genesis.json
    RUN/founding.json                           the members' registrations, and in a deployment their consents
    RUN/readers.json                            public keys of those who may read the artifacts
    RUN/records/L0000-G0000-R00001-A01.json     signed RoundRecord: lane, generation, round, attempt
    RUN/salts/L0000-G0000-R00001-A01.json       what hides it on the chain; deletable
    RUN/credits/L0000-G0000-R00001.json         what the round was worth, and whom it paid, where that is measured
    RUN/epochs/E00001.json                      the amounts behind each root of credit on the chain, to claim them by
    RUN/generations/L0000-G0001.json            signed GenerationRecord: lane, generation
    RUN/memberships/L0000-G0001.json            signed MembershipRecord of the change that opens a generation
    RUN/erasures/L0000-G0001.json               signed attestation of the erasure that opens a generation
    RUN/certificates/L0000-G0001.json           and its certificate, once everything is done
    RUN/calibration.json                        signed Calibration of what is served; replaced
    RUN/pruned.json                             the aggregates that `foedus prune` has removed; replaced
    RUN/anchors.jsonl, private.jsonl            the commit queues, with the chains' receipts (chain/queue.py)
    RUN/artifacts/                              what is sealed (core/storage/artifacts.py), unless stored elsewhere

Genesis, readers, records and salts are copied, sealed, to the artifacts: an auditor can do with those alone.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any, TypeVar

from core import keys
from core.adapter import AdapterState
from core.aggregation import RULES
from core.calibration import Calibration
from core.canonical import ZERO_DIGEST, Address, Digest, from_json, to_json
from core.credit import CreditRecord, CreditTree
from core.erasures import Attestation
from core.errors import FormatError, IntegrityError, RunError, UsageError
from core.founding import Founding
from core.generations import GenerationRecord, last_round, lineage
from core.genesis import Genesis
from core.keys import Key
from core.ledger import RoundCommitment
from core.membership import MembershipRecord
from core.model_selection import served_round, stops
from core.pruned import Pruned
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts, commit_to
from core.signed import Signed
from core.storage.artifacts import Artifacts
from core.storage.blobs import Blobs, Folder, open_blobs, read, write
from core.storage.readers import Readers

T = TypeVar("T")

CALIBRATION = "calibration.json"
"""The file of a Calibration."""
FOUNDING = "founding.json"
"""The file of a Founding."""
PRUNED = "pruned.json"
"""The file of a Pruned."""


class RunFolder:
    """One run's files. Reading is free for everyone; writing needs the run's lock (`server_app`)."""

    def __init__(self, folder: Path, store: str = "", key: Key | Path | None = None, former: Key | None = None) -> None:
        """`store`: a folder or URL for the artifacts, "" is beside the records; `key`: a reader's, or its file.

        `former`: the coordinator's key that `key` replaces, while it does.
        """
        self.folder = folder
        self._store = store
        self._key = key
        self._former = former

    @property
    def name(self) -> str:
        """The run id."""
        return self.folder.name

    @property
    def started(self) -> bool:
        """Whether a genesis was written."""
        return (self.folder / "genesis.json").exists()

    @property
    def started_at(self) -> float:
        """When the genesis was written, in seconds since the epoch."""
        return (self.folder / "genesis.json").stat().st_mtime

    @cached_property
    def genesis(self) -> Genesis:
        """The genesis, with the changes of its members since; raises UsageError when there is none."""
        if not self.started:
            raise UsageError(f"run {self.name} has no genesis in {self.folder}: it never started")
        return _read(self.folder / "genesis.json", Genesis.from_dict).amended(self.memberships())

    @property
    def founding(self) -> Founding | None:
        """What the members signed when they founded; None where nobody did."""
        path = self.folder / FOUNDING
        return _read(path, Founding.from_dict) if path.exists() else None

    def memberships(self) -> list[Signed[MembershipRecord]]:
        """What changed the members of lanes since the founding, by generation."""
        paths = (self.folder / "memberships").glob("L*.json")
        found = [_read(path, partial(Signed.parse, MembershipRecord)) for path in paths]
        return sorted(found, key=lambda signed: (signed.value.proposal.generation, signed.value.proposal.lane))

    def change_members(self, signed: Signed[MembershipRecord]) -> None:
        """Write a change of a lane's members; once more changes nothing. Raises RunError for another in its place."""
        proposal, data = signed.value.proposal, to_json(signed.to_dict())
        name = membership_name(proposal.lane, proposal.generation)
        if (path := self.folder / name).exists() and path.read_bytes() != data:
            raise RunError(f"membership {path.stem} is written already and never rewritten")
        write(path, data)
        for known in ("genesis", "readers", "artifacts"):  # they know the members
            self.__dict__.pop(known, None)
        if signed.value.rotations:
            self.artifacts.reseal()
        # Of what is for all, a newcomer is a reader, too.
        for shared in self._for_all():
            self._copy(shared)
        self.artifacts.share(self.genesis.shared_a)
        self._copy(name, self.genesis.ever_in(proposal.lane))

    def initial(self, fresh: AdapterState) -> AdapterState:
        """The state of a lane before round 1: that of a run that it goes on from, else the rule's own.

        Raises what `Artifacts.open` raises.
        """
        origin = self.genesis.origin
        return self.artifacts.open(origin.state) if origin else RULES[self.genesis.rule].initial(fresh)

    @property
    def former(self) -> "RunFolder | None":
        """The run that this one goes on from, where it lies beside it."""
        if (origin := self.genesis.origin) is None:
            return None
        beside = RunFolder(self.folder.parent / origin.run)
        return beside if beside.started and beside.genesis.digest == origin.genesis else None

    def erased_since(self, record: Digest) -> list[str]:
        """Who was erased, wholly or in part, since a record that a lane's line has no more; nobody while it has it."""
        found = next((signed.value for signed in self.records() if signed.value.digest == record), None)
        if found is None or record in {signed.value.digest for signed in self.lineage(found.lane)}:
            return []
        behind = found.lane, found.generation
        later = [attested.value for attested in self.erasures() if attested.value.place > behind]
        return sorted({self.genesis.names[a.organisation] for a in later if a.lane == found.lane})

    @cached_property
    def readers(self) -> Readers:
        """The public keys of those who may read, newcomers too; raises IntegrityError for a file that is malformed."""
        return _read(self.folder / "readers.json", Readers.from_dict).since(self.genesis)

    @cached_property
    def blobs(self) -> Blobs:
        """Where the artifacts are; raises ConfigError for a URL that cannot be opened."""
        return open_blobs(self._store) if self._store else Folder(self.folder / "artifacts")

    @cached_property
    def artifacts(self) -> Artifacts:
        """The sealed store, read with `key`."""
        return Artifacts(self.blobs, self.genesis.salt, self.readers, self.key, self._former)

    @property
    def key(self) -> Key | None:
        """The reader's key that was given, else the coordinator's where anybody can derive it, else None.

        Raises UsageError when its file cannot be read.
        """
        if self._key is not None:
            return keys.read(self._key) if isinstance(self._key, Path) else self._key
        derived = keys.derive(self.genesis.seed, "coordinator")
        return derived if derived.address == self.genesis.coordinator else None

    def read_with(self, key: Key | Path | None) -> "RunFolder":
        """The same run, read with another key, or with its own when that is None."""
        return RunFolder(self.folder, self._store, key or self._key)

    def replacing(self, former: Key, key: Key) -> "RunFolder":
        """The same run, while the coordinator's key replaces the one that all was sealed with so far."""
        return RunFolder(self.folder, self._store, key, former)

    def begin(self, genesis: Genesis, readers: Readers, founding: Founding | None = None) -> None:
        """Write genesis, readers and what the members signed; raises RunError when the run has a genesis already."""
        if self.started:
            raise RunError(f"run {self.name} has a genesis already")
        # The genesis comes last: a run has started once it is there, and then its readers are, too.
        write(self.folder / "readers.json", to_json(readers.to_dict()))
        if founding:
            write(self.folder / FOUNDING, to_json(founding.to_dict()))
        write(self.folder / "genesis.json", to_json(genesis.to_dict()))
        for name in self._for_all():
            self._copy(name)

    def complete_copies(self) -> None:
        """Store the sealed copies of documents that a crash has left out."""
        for name in self._for_all():
            self._copy(name)
        for lane in range(len(self.genesis.lanes)):
            for opening in self.generations(lane).values():
                self._copy_generation(opening.value)
        for membership in self.memberships():
            self.change_members(membership)
        for attested in self.erasures():
            self._copy(erasure_name(attested.value.lane, attested.value.generation))
            if path := self.certificate(attested.value):
                self._copy(f"certificates/{path.name}")
        salts_destroyed = self.salts_destroyed()
        for signed in self.records():
            self._copy_round(signed.value, salted=signed.value.digest not in salts_destroyed)

    def _for_all(self) -> list[str]:
        """The documents that every reader may read, those first that a run begins with."""
        named = ("readers.json", FOUNDING, "genesis.json", CALIBRATION, PRUNED)
        return [*(name for name in named if (self.folder / name).exists()), *map(epoch_name, self.epochs())]

    def append(self, signed: Signed[RoundRecord], salts: Salts, credit: CreditRecord | None = None) -> None:
        """Write a record, its salts and credit first: a record without salts could never be committed.

        A round that admitted nothing is never committed and has no salts.
        """
        name = _record_name(signed.value)
        if (path := self.folder / "records" / name).exists():
            raise RunError(f"record {name} exists already and is never rewritten")
        if signed.value.admitted:
            write(self.folder / "salts" / name, to_json(salts.to_dict()))
        if credit:
            write(self.folder / credit_name(signed.value.key), to_json(credit.to_dict()))
        write(path, to_json(signed.to_dict()))
        self._copy_round(signed.value)

    def records(self) -> Iterator[Signed[RoundRecord]]:
        """All records, by lane, generation, round and attempt."""
        # Names sort as records do, since every number in them has leading zeros.
        for path in sorted((self.folder / "records").glob("L*.json")):
            yield _read(path, partial(Signed.parse, RoundRecord))

    def open_generation(self, signed: Signed[GenerationRecord]) -> None:
        """Write what opens a lane's generation; raises RunError when that is open already."""
        record = signed.value
        if (path := self.folder / generation_name(record.lane, record.generation)).exists():
            raise RunError(f"generation {path.stem} is open already and never rewritten")
        # What is served changes from here on, and a calibration may name records that are being erased.
        self._drop_calibration()
        write(path, to_json(signed.to_dict()))
        self._copy_generation(record)

    @property
    def calibration(self) -> Signed[Calibration] | None:
        """The weights of verdicts that were fitted for this run; None where there are none."""
        path = self.folder / CALIBRATION
        return _read(path, partial(Signed.parse, Calibration)) if path.exists() else None

    def calibrate(self, signed: Signed[Calibration]) -> None:
        """Write a calibration in place of the one before."""
        self._drop_calibration()
        write(self.folder / CALIBRATION, to_json(signed.to_dict()))
        self._copy(CALIBRATION)

    @property
    def pruned(self) -> Pruned:
        """The aggregates that were removed."""
        return _read(path, Pruned.from_dict) if (path := self.folder / PRUNED).exists() else Pruned()

    def prune(self, aggregates: Collection[Digest]) -> None:
        """Say which aggregates go, then remove those that are still there."""
        pruned = Pruned(tuple(sorted({*self.pruned.aggregates, *aggregates})))
        self.artifacts.remove_document(PRUNED)
        write(self.folder / PRUNED, to_json(pruned.to_dict()))
        self._copy(PRUNED)
        # What a crash leaves is listed, and goes the next time.
        for name in pruned.aggregates:
            self.artifacts.remove(name)

    def keep_epoch(self, number: int, tree: CreditTree) -> None:
        """Write the amounts of an epoch of credit before its root is posted; once more in place of one that was not."""
        name = epoch_name(number)
        self.artifacts.remove_document(name)
        write(self.folder / name, to_json(tree.to_dict()))
        self._copy(name)

    def epochs(self) -> dict[int, CreditTree]:
        """The amounts of every epoch of credit, in order."""
        found: dict[int, CreditTree] = {}
        while (path := self.folder / epoch_name(len(found) + 1)).exists():
            found[len(found) + 1] = _read(path, CreditTree.from_dict)
        return found

    def attest(self, signed: Signed[Attestation]) -> None:
        """Write what an erasure is about to do; raises RunError when another one has that place."""
        attestation = signed.value
        if (path := self.folder / erasure_name(attestation.lane, attestation.generation)).exists():
            raise RunError(f"erasure {path.stem} is attested already and never rewritten")
        write(path, to_json(signed.to_dict()))
        self._copy(erasure_name(attestation.lane, attestation.generation))

    def certify(self, attestation: Attestation, certificate: bytes) -> Path:
        """Write the certificate of an erasure of which everything is done; returns where."""
        name = certificate_name(attestation.lane, attestation.generation)
        write(self.folder / name, certificate)
        self._copy(name)
        return self.folder / name

    def erasures(self) -> list[Signed[Attestation]]:
        """The attestations of all erasures, by lane and generation."""
        paths = sorted((self.folder / "erasures").glob("L*.json"))
        return [_read(path, partial(Signed.parse, Attestation)) for path in paths]

    def certificate(self, attestation: Attestation) -> Path | None:
        """Where the certificate of an erasure lies; None before there is one."""
        path = self.folder / certificate_name(attestation.lane, attestation.generation)
        return path if path.exists() else None

    def unfinished(self) -> Signed[Attestation] | None:
        """The erasure that was attested and has no certificate, if there is one."""
        return next((signed for signed in self.erasures() if self.certificate(signed.value) is None), None)

    def check_settled(self) -> None:
        """Raise UsageError while an erasure is unfinished: nothing else may train, or change who is a member."""
        if begun := self.unfinished():
            asked = begun.value.request.value
            name = self.genesis.names[asked.organisation]
            what = f"{asked.count} records of {name}" if asked.count else name
            raise UsageError(
                f"run {self.name}: the erasure of {what} by {asked.method} is not finished: ask for that one again"
            )

    def salts_destroyed(self) -> frozenset[Digest]:
        """The records whose salts an erasure destroys."""
        return frozenset(record for signed in self.erasures() for record in signed.value.salts_destroyed)

    def destroy_salts(self, record: RoundRecord) -> None:
        """Destroy the salts of a record, and the key of their copy."""
        name = f"salts/{_record_name(record)}"
        Folder(self.folder).remove(name)
        self.artifacts.destroy_document(name)

    def generations(self, lane: int) -> dict[int, Signed[GenerationRecord]]:
        """What opened the lane's generations, in order; nothing before the first erasure."""
        found: dict[int, Signed[GenerationRecord]] = {}
        while (path := self.folder / generation_name(lane, len(found) + 1)).exists():
            found[len(found) + 1] = _read(path, partial(Signed.parse, GenerationRecord))
        return found

    def members(self, lane: int, generation: int | None = None) -> tuple[Address, ...]:
        """The organisations of a lane's generation, by default the current one."""
        if generation is None:
            generation = len(self.generations(lane))
        if not generation:
            return self.genesis.lanes[lane]
        return self._opening(lane, generation).members

    def last_round(self, lane: int, line: Sequence[Signed[RoundRecord]]) -> int:
        """The round that a lane's current generation is complete with, as far as its `lineage` so far tells."""
        opened = self.generations(lane)
        if line and stops(self.genesis, line[-1].value.round, line[-1].value.best):
            return line[-1].value.round
        return last_round(self.genesis, opened[len(opened)].value if opened else None)

    def lineage(self, lane: int, generation: int | None = None) -> list[Signed[RoundRecord]]:
        """The lane's rounds that a generation, by default the current one, has grown through, in order."""
        opened = self.generations(lane)
        last = len(opened) if generation is None else generation
        openings = {number: signed.value for number, signed in opened.items() if number <= last}
        own = (s for s in self.records() if s.value.lane == lane and s.value.generation <= last)
        return lineage(own, openings)

    def served_line(self, lane: int, generation: int | None = None) -> list[Signed[RoundRecord]]:
        """The first rounds of a lane's `lineage`: those that its served state is the sum of."""
        line = self.lineage(lane, generation)
        last = served_round(self.genesis, line[-1].value).round if line else 0
        return [signed for signed in line if signed.value.round <= last]

    def commitment(self, record: RoundRecord) -> RoundCommitment:
        """What the chain is told of a record; raises IntegrityError when a salt is missing."""
        before = self.before(record)
        parent = self.salts(before.value).aggregate_commitment(before.value) if before else ZERO_DIGEST
        return commit_to(record, self.salts(record), parent)

    def before(self, record: RoundRecord) -> Signed[RoundRecord] | None:
        """The record that a record grows from: the last attempt of the round before, in its generation or another."""
        generation = record.generation
        if generation:
            opening = self._opening(record.lane, generation)
            generation = opening.parent_generation if record.round == opening.parent_round + 1 else generation
        name = replace(record.key, generation=generation, round=record.round - 1).file_name
        attempts = (self.folder / "records" / f"{name}-A{attempt:02}.json" for attempt in count(1))
        written = list(takewhile(Path.exists, attempts))
        return _read(written[-1], partial(Signed.parse, RoundRecord)) if written else None

    def _opening(self, lane: int, generation: int) -> GenerationRecord:
        return _read(self.folder / generation_name(lane, generation), partial(Signed.parse, GenerationRecord)).value

    def salts(self, record: RoundRecord) -> Salts:
        """The salts of a record; raises IntegrityError when they are missing."""
        return _read(self.folder / "salts" / _record_name(record), Salts.from_dict)

    def credit(self, record: RoundRecord) -> CreditRecord:
        """What a round was worth; raises IntegrityError when that is missing, or not what the record names."""
        name = credit_name(record.key)
        credit = _read(self.folder / name, CreditRecord.from_dict)
        if credit.digest != record.credit:
            raise IntegrityError(f"{name}: expected credit {record.credit}, as in the record, got {credit.digest}")
        return credit

    @property
    def queue(self) -> Path:
        """The file of the commit queue: every commitment on its way to the chain, and the chain's receipts."""
        return self.folder / "anchors.jsonl"

    @property
    def private_queue(self) -> Path:
        """The file of the commit queue of the private chain."""
        return self.folder / "private.jsonl"

    def _drop_calibration(self) -> None:
        # The file goes last: whoever comes back after a crash finds it, and begins again.
        self.artifacts.remove_document(CALIBRATION)
        Folder(self.folder).remove(CALIBRATION)

    def _copy_round(self, record: RoundRecord, *, salted: bool = True) -> None:
        """Seal a record and its salts for those who learn in its lane."""
        name, members = _record_name(record), self.members(record.lane, record.generation)
        if record.admitted and salted:
            self._copy(f"salts/{name}", members)
        if record.credit != ZERO_DIGEST:
            self._copy(credit_name(record.key), members)
        self._copy(f"records/{name}", members)

    def _copy_generation(self, record: GenerationRecord) -> None:
        self._copy(generation_name(record.lane, record.generation), record.members)

    def _copy(self, name: str, members: Collection[Address] | None = None) -> None:
        self.artifacts.put_document(name, (self.folder / name).read_bytes(), members)


def credit_name(key: RoundKey) -> str:
    """Where the credit of a round lies."""
    return f"credits/{key.file_name}.json"


def epoch_name(number: int) -> str:
    """Where the amounts of an epoch of credit lie."""
    return f"epochs/E{number:05}.json"


def generation_name(lane: int, generation: int) -> str:
    """Where the record that opens a generation lies."""
    return f"generations/L{lane:04}-G{generation:04}.json"


def erasure_name(lane: int, generation: int) -> str:
    """Where the attestation of the erasure that opens a generation lies."""
    return f"erasures/L{lane:04}-G{generation:04}.json"


def membership_name(lane: int, generation: int) -> str:
    """Where the change of members that opens a generation lies."""
    return f"memberships/L{lane:04}-G{generation:04}.json"


def certificate_name(lane: int, generation: int) -> str:
    """Where its certificate lies."""
    return f"certificates/L{lane:04}-G{generation:04}.json"


def _record_name(record: RoundRecord) -> str:
    return f"{record.key.file_name}-A{record.attempt:02}.json"


def _read(path: Path, parse: Callable[[Any], T]) -> T:
    try:
        return parse(from_json(read(path)))
    except OSError as error:
        raise IntegrityError(f"{path.name} cannot be read: {error.strerror}") from error
    except FormatError as error:
        raise IntegrityError(f"{path.name}: {error}") from error
