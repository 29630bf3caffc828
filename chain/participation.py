"""A proof that an organisation's update counted in a round, exported and checked alone.

It opens one leaf of the round's Merkle tree: the signed manifest, its salt, and the siblings up to the root that the
ledger holds. Nothing is revealed of the other organisations; whoever checks it needs only a ledger. The contract
agrees: `isAdmitted` takes the salted manifest and the same siblings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from core import merkle
from core.canonical import Address, Digest, commitment, raw
from core.errors import FormatError, IntegrityError, UsageError
from core.keys import Domain
from core.ledger import Ledger, RoundKey
from core.rounds import RoundRecord
from core.store import RunFolder
from core.update import SignedManifest, UpdateManifest


@dataclass(frozen=True)
class ParticipationProof:
    """A signed manifest, its 32-byte salt, and the siblings of its leaf, from the leaf upwards."""

    signed: SignedManifest
    salt: bytes
    siblings: tuple[bytes, ...]

    @classmethod
    def of(cls, run: RunFolder, organisation: Address, number: int) -> Self:
        """The proof for an organisation's update of round `number`.

        Raises UsageError when it was not admitted to that round, IntegrityError when the round's salts are gone.
        """
        record, index = _admission(run, organisation, number)
        salts = run.salts(record)
        siblings = merkle.proof(salts.leaves(record), index)
        return cls(record.admitted[index].signed, bytes.fromhex(salts.updates[organisation]), siblings)

    @property
    def key(self) -> RoundKey:
        """Where the round stands on the ledger."""
        manifest = self.signed.manifest
        return RoundKey(manifest.genesis, manifest.lane, manifest.generation, manifest.round)

    @property
    def commitment(self) -> Digest:
        """The salted manifest, which the contract hashes into the leaf."""
        return commitment(self.salt, self.signed.digest)

    def verified(self, ledger: Ledger) -> UpdateManifest:
        """The manifest that was admitted.

        Raises ForgeryError when its organisation did not sign it for this ledger, IntegrityError when it is no member
        of the run, the round is not on the ledger, or the update is not among the round's.
        """
        manifest = self.signed.verified(Domain(ledger.chain_id, ledger.contract))
        if manifest.organisation not in ledger.members(self.key.run):
            raise IntegrityError(f"{manifest.organisation} is no member of run {self.key.run} on the ledger")
        if (found := ledger.read(self.key)) is None:
            raise IntegrityError(f"round {self.key.round} of lane {self.key.lane} is not on the ledger")
        root = "0x" + merkle.process(merkle.leaf(raw(self.commitment)), self.siblings).hex()
        if root != found[0].updates_root:
            raise IntegrityError(f"the proof leads to root {root}, the ledger has {found[0].updates_root}")
        return manifest

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        siblings = [sibling.hex() for sibling in self.siblings]
        return self.signed.to_dict() | {"salt": self.salt.hex(), "siblings": siblings}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        signed = SignedManifest.from_dict(data)
        try:
            return cls(signed, bytes.fromhex(data["salt"]), tuple(bytes.fromhex(s) for s in data["siblings"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"malformed proof of participation: {error}") from error


def _admission(run: RunFolder, organisation: Address, number: int) -> tuple[RoundRecord, int]:
    """The record that admitted an organisation's update of a round, and the update's place in it."""
    for signed in run.records():
        record = signed.record
        admitted = [a.organisation for a in record.admitted]
        if record.round == number and organisation in admitted:
            return record, admitted.index(organisation)
    raise UsageError(f"{organisation} has no admitted update in round {number} of run {run.name}")
