"""A proof that one organisation's update was admitted to one round, which can be shown to anybody and checked alone.

It holds the organisation's signed manifest, the salt that hid it and the siblings of its Merkle leaf; together with a
ledger that is enough. Nothing of the other organisations is in it but hashes of salted digests. As a file it is
canonical JSON:

    {"chain": {"chain_id", "contract"}, "manifest": signed manifest, "salt": 64 hex digits, "siblings": [digest]}
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

from chain.ledger import EthereumLedger
from core import merkle
from core.canonical import Address, Digest, commitment, from_json, raw, to_json
from core.errors import FormatError, IntegrityError
from core.keys import Domain
from core.ledger import Anchor, Ledger
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts
from core.signed import Signed
from core.update import UpdateManifest


@dataclass(frozen=True)
class ParticipationProof:
    """One manifest and its way to a round's root."""

    chain: Domain
    signed: Signed[UpdateManifest]
    salt: bytes
    siblings: tuple[Digest, ...]

    @property
    def key(self) -> RoundKey:
        """The round."""
        manifest = self.signed.value
        return RoundKey(manifest.genesis, manifest.lane, manifest.generation, manifest.round)

    @property
    def manifest_commitment(self) -> Digest:
        """The salted digest of the manifest: the content of its leaf, and an argument of `is_admitted`."""
        return commitment(self.salt, self.signed.value.digest)

    @property
    def path(self) -> tuple[bytes, ...]:
        """The siblings as bytes."""
        return tuple(raw(sibling) for sibling in self.siblings)

    @classmethod
    def of(cls, record: RoundRecord, salts: Salts, organisation: Address, chain: Domain) -> Self:
        """The proof of an organisation's update in a record; raises IntegrityError when it has none there."""
        members = [admitted.organisation for admitted in record.admitted]
        if organisation not in members:
            raise IntegrityError(f"{record.key}: expected an update of {organisation}, got those of {members}")
        index = members.index(organisation)
        siblings = merkle.proof(salts.leaves(record), index)
        return cls(
            chain,
            record.admitted[index].signed,
            bytes.fromhex(salts.updates[organisation]),
            tuple(Digest("0x" + sibling.hex()) for sibling in siblings),
        )

    def check(self, ledger: Ledger) -> Anchor:
        """The round's anchor on `ledger`.

        Raises IntegrityError (ForgeryError for the signature) when the proof does not hold there,
        LedgerUnreachableError when the ledger does not answer.
        """
        if (ledger.chain_id, ledger.contract) != (self.chain.chain_id, self.chain.contract):
            raise IntegrityError(f"expected the ledger of {self.chain}, got {ledger.contract} on {ledger.chain_id}")
        manifest = self.signed.signed_by(self.chain, self.signed.value.organisation)
        if manifest.organisation not in ledger.members(manifest.genesis):
            raise IntegrityError(f"run {manifest.genesis}: expected a member, got {manifest.organisation}")
        committed = ledger.read(self.key)
        if committed is None:
            raise IntegrityError(f"expected {self.key} on the ledger, got nothing")
        commitment, anchor = committed
        root = merkle.process(merkle.leaf(raw(self.manifest_commitment)), self.path)
        if root != raw(commitment.updates_root):
            raise IntegrityError(f"{self.key}: expected a proof for root {commitment.updates_root}, got 0x{root.hex()}")
        return anchor

    def check_on_chain(self, ledger: EthereumLedger) -> Anchor:
        """Check here, and let the contract verify the Merkle proof too; raises as `check` does."""
        anchor = self.check(ledger)
        if not ledger.is_admitted(self.key, self.manifest_commitment, self.path):
            raise IntegrityError(f"{self.key}: expected a proof that the contract accepts, got one that it refuses")
        return anchor

    def to_json(self) -> bytes:
        """The proof as a file."""
        return to_json(
            {
                "chain": asdict(self.chain),
                "manifest": self.signed.to_dict(),
                "salt": self.salt.hex(),
                "siblings": list(self.siblings),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse a file; raises FormatError."""
        fields: dict[str, Any] = from_json(data)
        try:
            proof = cls(
                Domain(**fields.pop("chain")),
                Signed.parse(UpdateManifest, fields.pop("manifest")),
                bytes.fromhex(fields.pop("salt")),
                tuple(Digest(sibling) for sibling in fields.pop("siblings")),
            )
            _ = proof.path, proof.manifest_commitment  # which raise FormatError for digests and a salt that are none
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"malformed proof of participation: {error}") from error
        if fields:
            raise FormatError(f"malformed proof of participation: expected no more fields, got {sorted(fields)}")
        return proof
