"""A proof that one organisation's update was admitted to one round, which can be shown to anybody and checked alone.

It holds the organisation's signed manifest, the salt that hid it and the siblings of its Merkle leaf; together with a
ledger that is enough. Nothing of the other organisations is in it but hashes of salted digests. As a file it is
canonical JSON:

    {"federation": {"chain", "content", "coordinator"}, "generation", "manifest", "round", "salt": 64 hex digits,
     "siblings": [digest]}

`generation` and `round` say where the update was admitted: a late one in the round after its own, a re-aggregated one
in a later generation.
`federation` is what the genesis digest opens to, so that whoever knows that digest, or the contract, knows whose run it
is; whoever knows neither learns only that the proof is consistent in itself: anybody can deploy the contract.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

from chain.ledger import EthereumLedger
from core import merkle
from core.canonical import Address, Digest, commitment, from_json, raw, to_json
from core.errors import FormatError, IntegrityError
from core.genesis import Genesis, GenesisHeader
from core.ledger import Anchor, Ledger, LedgerView
from core.parsing import typed
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts
from core.signed import Signed
from core.update import UpdateManifest


@dataclass(frozen=True)
class ParticipationProof:
    """One manifest and its way to a round's root."""

    federation: GenesisHeader
    signed: Signed[UpdateManifest]
    generation: int
    round: int
    salt: bytes
    siblings: tuple[Digest, ...]

    @property
    def key(self) -> RoundKey:
        """The round that it was admitted to."""
        manifest = self.signed.value
        return RoundKey(manifest.genesis, manifest.lane, self.generation, self.round)

    @property
    def manifest_commitment(self) -> Digest:
        """The salted digest of the manifest: the content of its leaf, and an argument of `is_admitted`."""
        return commitment(self.salt, self.signed.value.digest)

    @property
    def path(self) -> tuple[bytes, ...]:
        """The siblings as bytes."""
        return tuple(raw(sibling) for sibling in self.siblings)

    @classmethod
    def of(cls, record: RoundRecord, salts: Salts, organisation: Address, federation: GenesisHeader) -> Self:
        """The proof of an organisation's update in a record; raises IntegrityError when it has none there."""
        members = [admitted.organisation for admitted in record.admitted]
        if organisation not in members:
            raise IntegrityError(f"{record.key}: expected an update of {organisation}, got those of {members}")
        index = members.index(organisation)
        siblings = merkle.proof(salts.leaves(record), index)
        return cls(
            federation,
            record.admitted[index].signed,
            record.generation,
            record.round,
            bytes.fromhex(salts.updates[organisation]),
            tuple(Digest("0x" + sibling.hex()) for sibling in siblings),
        )

    def check(self, ledger: Ledger, genesis: Genesis | None = None) -> Anchor:
        """The round's anchor on `ledger`; with its `genesis` also of who joined since, or has another key now.

        Raises IntegrityError (ForgeryError for the signature) when the proof does not hold there,
        LedgerUnreachableError when the ledger does not answer.
        """
        check_run(ledger, self.federation)
        manifest = self.signed.verified(genesis or self.federation)
        members = {member.address for member in genesis.everyone} if genesis else ledger.members(manifest.genesis)
        if manifest.organisation not in members:
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
                "federation": asdict(self.federation),
                "generation": self.generation,
                "manifest": self.signed.to_dict(),
                "round": self.round,
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
                GenesisHeader.from_dict(fields.pop("federation")),
                Signed.parse(UpdateManifest, fields.pop("manifest")),
                fields.pop("generation"),
                fields.pop("round"),
                bytes.fromhex(fields.pop("salt")),
                tuple(Digest(sibling) for sibling in fields.pop("siblings")),
            )
            # Which raise FormatError for digests and a salt that are none.
            _ = proof.path, proof.manifest_commitment, typed(proof)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"malformed proof of participation: {error}") from error
        if fields:
            raise FormatError(f"malformed proof of participation: expected no more fields, got {sorted(fields)}")
        return proof


def check_run(ledger: LedgerView, federation: GenesisHeader) -> None:
    """Raise IntegrityError unless this ledger is the federation's, and its run was opened by the coordinator."""
    if ledger.domain != federation.chain:
        raise IntegrityError(f"ledger: expected {federation.chain}, got {ledger.domain}")
    # A digest that is seen before it is mined can be opened by another coordinator.
    account = ledger.opened_by(federation.digest)
    if account not in (None, federation.coordinator):
        raise IntegrityError(f"run {federation.digest}: expected coordinator {federation.coordinator}, got {account}")
