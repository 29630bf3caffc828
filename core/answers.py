"""AnswerReceipt: what a server says of one answer that it gave, signed by a key of its own.

It is a server's word on which model answered what, in the domain of the run's chain; a verdict is proved by other means
(provenance/evidence.py). Handed over is a bundle with request and answer in full, of which the receipt has the digests:

    {"answer", "federation": the header of the genesis, "receipt": signed AnswerReceipt, "request"}
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

from core.canonical import Address, Digest, digest, raw, to_json
from core.errors import FormatError, IntegrityError
from core.genesis import Genesis, GenesisHeader
from core.signed import Signed, SigningKey, Statement

_FIELDS = {"answer", "federation", "receipt", "request"}


@dataclass(frozen=True)
class AnswerReceipt(Statement):
    """One answer of a run's served model.

    `server` is the signer, `base` and `aggregate` the digests of base model and served adapter, `request` and `answer`
    those of what was asked and said, `trace` that of the TokenTrace, or 32 zero bytes where none was asked for.
    """

    struct: ClassVar = "AnswerReceipt"
    struct_fields: ClassVar = (("genesis", "bytes32"), ("receipt", "bytes32"))

    genesis: Digest
    run: str
    server: Address
    base: Digest
    aggregate: Digest
    request: Digest
    answer: Digest
    trace: Digest

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/answer-receipt/v1``."""
        return digest("answer-receipt", to_json(self.to_dict()))

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return {"genesis": raw(self.genesis), "receipt": raw(self.digest)}


def receipt_bundle(
    genesis: Genesis, key: SigningKey, aggregate: Digest, trace: Digest, request: Mapping[str, Any], answer: Any
) -> dict[str, Any]:
    """The signed receipt of an answer, with what it is about; raises FormatError for what canonical JSON lacks."""
    asked, said = digest("request", to_json(request)), digest("answer", to_json(answer))
    receipt = AnswerReceipt(
        genesis.digest, genesis.run, key.address, genesis.base.digest, aggregate, asked, said, trace
    )
    signed = receipt.sign(key, genesis.chain).to_dict()
    return {"answer": answer, "federation": asdict(genesis.header), "receipt": signed, "request": request}


def checked_bundle(bundle: Mapping[str, Any]) -> tuple[AnswerReceipt, GenesisHeader]:
    """The receipt and the federation of a bundle that is consistent in itself.

    Raises FormatError for what is no bundle, IntegrityError for another request, answer or federation, ForgeryError for
    a signature that is not the named server's.
    """
    if not isinstance(bundle, Mapping) or set(bundle) != _FIELDS:
        raise FormatError(f"malformed receipt: expected {', '.join(sorted(_FIELDS))}")
    signed, federation = Signed.parse(AnswerReceipt, bundle["receipt"]), GenesisHeader.from_dict(bundle["federation"])
    receipt = signed.signed_by(federation.chain, signed.value.server)
    digests = {
        "genesis": federation.digest,
        "request": digest("request", to_json(bundle["request"])),
        "answer": digest("answer", to_json(bundle["answer"])),
    }
    for name, got in digests.items():
        if (expected := getattr(receipt, name)) != got:
            raise IntegrityError(f"receipt: expected the {name} {expected}, got {got}")
    return receipt, federation
