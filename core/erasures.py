"""What is signed of an erasure: the request, what is about to happen with what the audit found, and receipts.

    RUN/erasures/L0000-G0001.json       the attestation of the erasure that opens generation 1 of lane 0
    RUN/certificates/L0000-G0001.json   the certificate, once everything is done (unlearning/certificate.py)

The organisation signs the request, on its own machine, and hands it over with what it hides (`OpenedRequest`); the
coordinator signs attestation and certificate. An attestation is the point of no return: whoever finds one without a
certificate finds an erasure that has to be gone on with. It lists every state and every salt that is about to vanish,
so that an audit afterwards can tell what was erased from what was lost.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date as day
from functools import cached_property, partial
from typing import Any, ClassVar, Self

from core import seeds
from core.canonical import ZERO_DIGEST, Address, Digest, address, commitment, digest, raw, salt_bytes, to_json
from core.errors import ForgeryError, FormatError
from core.genesis import Genesis
from core.parsing import parsed
from core.signed import Federation, MemberStatement, OrganisationStatement, Place, Signed, SigningKey

METHODS = ("remove", "repair", "replay", "shards")
OF_RECORDS = ("replay", "shards")
"""The methods that erase records, and leave the organisation where it is."""
LONGEST_BASIS = 500
"""Characters of a legal basis: a certificate holds it, and everybody is sent that."""


@dataclass(frozen=True)
class ErasureRequest(OrganisationStatement):
    """An organisation asks that it be erased, or `count` of its records.

    `lanes` are those that must forget, ascending (see `lanes_to_change`). `records` hides which records (see `hidden`);
    it is zero, as `count`, for the whole organisation. `basis` is the legal basis that it gives, `date` the day in UTC
    on which it asks (YYYY-MM-DD). `nonce` follows from the key and the rest but the day, so that nobody else can guess
    it.
    """

    struct: ClassVar = "ErasureRequest"
    struct_fields: ClassVar = (
        ("genesis", "bytes32"),
        ("organisation", "address"),
        ("method", "string"),
        ("lanes", "uint32[]"),
        ("records", "bytes32"),
        ("count", "uint32"),
        ("basis", "string"),
        ("date", "string"),
        ("nonce", "bytes32"),
    )

    genesis: Digest
    organisation: Address
    method: str
    lanes: tuple[int, ...]
    records: Digest
    count: int
    basis: str
    date: str
    nonce: Digest

    @property
    def question(self) -> Self:
        """What is asked, without the day: asked again on another, it is still one request."""
        return replace(self, date="")

    @property
    def whole(self) -> bool:
        """Whether it is about the whole organisation."""
        return not self.count

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/erasure-request/v1``."""
        return digest("erasure-request", to_json(self.to_dict()))

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return self.to_dict() | {name: raw(getattr(self, name)) for name in ("genesis", "records", "nonce")}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self) | {"lanes": list(self.lanes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        request = parsed(cls, data, {"lanes": _lanes, "date": _day})
        methods = OF_RECORDS if request.count else tuple(name for name in METHODS if name != "shards")
        if request.method not in methods:
            raise FormatError(f"erasure request: expected method {' or '.join(methods)}, got {request.method!r}")
        if not 0 <= request.count < 2**32 or request.whole != (request.records == ZERO_DIGEST):
            raise FormatError(f"erasure request is about {request.count} records, committed as {request.records}")
        if len(request.basis) > LONGEST_BASIS or not request.basis.isprintable():
            got = f"{request.basis[:60]!r} of {len(request.basis)}"
            raise FormatError(f"erasure request: expected a basis of at most {LONGEST_BASIS} characters, got {got}")
        return request


def lanes_to_change(genesis: Genesis, organisation: Address, records: Collection[Digest]) -> tuple[int, ...]:
    """The lanes that must forget: all of an organisation's, or those of its shards that hold the records.

    None for a stranger.
    """
    lanes = genesis.lanes_of(organisation)
    shards = {seeds.shard_of(record, len(lanes)) for record in records if lanes}
    return tuple(lanes[shard] for shard in sorted(shards)) if records else lanes


def hidden(salt: bytes, records: Collection[Digest]) -> Digest:
    """The commitment to records under a salt of 32 bytes; zero for none.

    The salt is the key's for the request's nonce (`SigningKey.salt_for`): whoever knows a record but not the key
    cannot tell whether it was erased, and the organisation can show it at any time.
    """
    # A request for the whole organisation hides nothing.
    if not records:
        return ZERO_DIGEST
    # Keyed: records can be guessed, and an unkeyed digest would confirm a guess.
    return commitment(salt, digest("records", *map(raw, sorted(set(records)))))


@dataclass(frozen=True)
class OpenedRequest:
    """A request as its organisation hands it to the coordinator: with the records that it hides, and their salt.

    `records` are digests, ascending; `salt` is 64 hex digits, or nothing where the whole organisation is erased.
    """

    request: Signed[ErasureRequest]
    records: tuple[Digest, ...]
    salt: str

    @classmethod
    def of(
        cls, key: SigningKey, genesis: Genesis, method: str, records: Collection[Digest], basis: str, date: day
    ) -> Self:
        """An organisation's request of a day, signed; the same for the same question on that day.

        Raises FormatError for a basis that is too long, IntegrityError when a signer refuses.
        """
        ordered, own = tuple(sorted(set(records))), genesis.keys.owner(key.address)
        asked = {"genesis": genesis.digest, "organisation": own, "method": method, "basis": basis}
        wanted = digest("erasure-asked", to_json(asked | {"records": list(ordered)}))
        # Hashed, since the salt of what is asked is no secret to whoever may ask the key for salts.
        nonce = digest("erasure-nonce", key.salt_for(wanted))
        salt = key.salt_for(nonce) if ordered else b""
        request = ErasureRequest(
            genesis=genesis.digest,
            organisation=own,
            method=method,
            lanes=lanes_to_change(genesis, own, ordered),
            records=hidden(salt, ordered),
            count=len(ordered),
            basis=basis,
            date=date.isoformat(),
            nonce=nonce,
        )
        return cls(request.sign(key, genesis.chain), ordered, salt.hex())

    def verified(self, genesis: Genesis) -> Signed[ErasureRequest]:
        """The request; raises ForgeryError when another signed it, or it is about other records or lanes."""
        request = self.request.verified(genesis)
        if (request.records, request.count) != (hidden(bytes.fromhex(self.salt), self.records), len(self.records)):
            raise ForgeryError(f"request: expected the {request.count} records that were signed for, got others")
        if request.lanes != (lanes := lanes_to_change(genesis, request.organisation, self.records)):
            raise ForgeryError(
                f"request: expected the lanes {list(lanes)} of what is erased, got {list(request.lanes)}"
            )
        return self.request

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"request": self.request.to_dict(), "records": list(self.records), "salt": self.salt}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError. Signature and commitment are checked by `verified`."""
        opened = parsed(
            cls,
            data,
            {
                "request": lambda v: Signed.parse(ErasureRequest, v),
                "records": lambda v: tuple(map(_digest, v)),
                "salt": lambda v: salt_bytes(v).hex() if v else "",
            },
        )
        # One question has one file: what only reads as a list, or as no salt, is another spelling.
        if opened.to_dict() != data:
            raise FormatError("malformed opened request: expected a list of records and a salt as text")
        if list(opened.records) != sorted(set(opened.records)) or bool(opened.records) != bool(opened.salt):
            raise FormatError("malformed opened request: expected records once, in order, and a salt for them alone")
        return opened


@dataclass(frozen=True)
class Attestation(MemberStatement):
    """What an erasure does to a lane, and what a full audit found just before.

    Generation `generation` grows from (`parent_generation`, `parent_round`), sums the rounds up to `reaggregated` again
    without `erased` and trains those up to `rounds`; an organisation that erases records only is not among `erased`
    and trains without them. `destroyed` are the states that become unreadable, `salts_destroyed` the
    digests of the records whose salts vanish, `holders` who was sent a state that knew the erased. `recomputed` and
    `attested` count the rounds of that audit, which had no failure. `date` is the day in UTC of the attestation, by the
    coordinator's clock; its block on the chain has another. `salt` hides all of it on the chain.
    """

    struct: ClassVar = "Attestation"
    struct_fields: ClassVar = (
        ("genesis", "bytes32"),
        ("lane", "uint32"),
        ("generation", "uint32"),
        ("attestation", "bytes32"),
    )

    request: Signed[ErasureRequest]
    lane: int
    generation: int
    parent_generation: int
    parent_round: int
    reaggregated: int
    rounds: int
    erased: tuple[Address, ...]
    destroyed: tuple[Digest, ...]
    salts_destroyed: tuple[Digest, ...]
    holders: tuple[Address, ...]
    recomputed: int
    attested: int
    date: str
    salt: str

    @property
    def organisation(self) -> Address:
        """Who asked: it is erased, or records of it."""
        return self.request.value.organisation

    @property
    def whole(self) -> bool:
        """Whether the whole organisation is erased."""
        return self.request.value.whole

    @property
    def method(self) -> str:
        """How."""
        return self.request.value.method

    @property
    def days(self) -> int:
        """The days between request and attestation, by the clocks of the two; negative where these differ."""
        return (day.fromisoformat(self.date) - day.fromisoformat(self.request.value.date)).days

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/attestation/v1``."""
        return digest("attestation", to_json(self.to_dict()))

    @property
    def erasure(self) -> Digest:
        """The erasure's id on the chain: the salted digest of the request."""
        return self.hide(self.request.value.digest)

    def hide(self, value: Digest) -> Digest:
        """The salted digest of a value, as the chain has it."""
        return commitment(salt_bytes(self.salt), value)

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return {
            "genesis": raw(self.federation()),
            "lane": self.lane,
            "generation": self.generation,
            "attestation": raw(self.digest),
        }

    def federation(self) -> Digest:
        """The genesis digest."""
        return self.request.value.genesis

    @property
    def place(self) -> Place:
        """The lane, and the generation that it opens."""
        return self.lane, self.generation

    def signers(self, federation: Federation, place: Place | None) -> tuple[Address, ...]:
        """The coordinator; the organisation has signed the request."""
        return (federation.signing(federation.coordinator, place),)

    def parts(self) -> tuple[Signed[ErasureRequest], ...]:
        """The request."""
        return (self.request,)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        flat = {f.name: getattr(self, f.name) for f in fields(self)}
        lists = {name: list(flat[name]) for name in _LISTS}
        return flat | lists | {"request": self.request.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        lists = {name: partial(_tuple, check) for name, check in _LISTS.items()}
        found = parsed(
            cls,
            data,
            {
                "request": lambda v: Signed.parse(ErasureRequest, v),
                "salt": lambda v: salt_bytes(v).hex(),
                "date": _day,
                **lists,
            },
        )
        if not 0 <= found.parent_generation < found.generation:
            raise FormatError("malformed attestation: it opens no generation")
        if found.lane not in found.request.value.lanes:
            raise FormatError(f"malformed attestation: expected a lane of its request, got lane {found.lane}")
        if found.whole != (found.organisation in found.erased):
            raise FormatError("malformed attestation: it leaves out who asked, or erases who asked for records only")
        if odd := [name for name in _COUNTS if not 0 <= getattr(found, name) < 2**32]:
            raise FormatError(f"malformed attestation: expected {odd[0]} of 32 bits, got {getattr(found, odd[0])}")
        return found


@dataclass(frozen=True)
class Receipt(OrganisationStatement):
    """An organisation says that it has deleted every copy of what it was sent that knew the erased organisation.

    `erasure` is the erasure's id on the chain.
    """

    struct: ClassVar = "DeletionReceipt"
    struct_fields: ClassVar = (("genesis", "bytes32"), ("erasure", "bytes32"), ("organisation", "address"))

    genesis: Digest
    erasure: Digest

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return {"genesis": raw(self.genesis), "erasure": raw(self.erasure), "organisation": self.organisation}


def _lanes(values: Iterable[Any]) -> tuple[int, ...]:
    lanes = tuple(values)
    counts = all(type(lane) is int and 0 <= lane < 2**32 for lane in lanes)
    if not lanes or not counts or list(lanes) != sorted(set(lanes)):
        raise FormatError(f"erasure request: expected numbers of lanes, ascending, got {str(lanes)[:140]}")
    return lanes


def _day(value: str) -> str:
    # Compared, since Python reads other forms of a date as well.
    if (text := day.fromisoformat(value).isoformat()) != value:
        raise FormatError(f"erasure request: expected a date {text}, got {value!r:.140}")
    return text


def _tuple(check: Callable[[Any], Any], values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(check(value) for value in values)


def _digest(value: Digest) -> Digest:
    raw(value)
    return value


_LISTS = {"erased": address, "destroyed": _digest, "salts_destroyed": _digest, "holders": address}
_COUNTS = (
    "lane",
    "generation",
    "parent_generation",
    "parent_round",
    "reaggregated",
    "rounds",
    "recomputed",
    "attested",
)
