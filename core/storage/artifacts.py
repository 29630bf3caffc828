"""What a run stores sealed: adapter states under their digests, and copies of its documents under their names.

    blocks/ab/cdef….sealed, .keys            a state as it travelled; ab cdef… is keyed by the genesis's salt
    genesis.sealed, .keys                    a document of the run folder, and so for each of them:
    records/L0000-G0000-R00001-A01.sealed    what an auditor needs who has nothing else of the run

Each is encrypted under a key of its own. The wraps of that key (core/storage/sealing.py) lie beside it in a file that
can be deleted: then the bytes are noise to everyone, also in copies that nobody can reach. Beyond so many readers it is
wrapped once, for their group's key (core/storage/groups.py).
"""

import hmac
import secrets
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from core.adapter import AdapterState
from core.canonical import Address, Digest, digest, domain, from_json, raw, to_json
from core.errors import DestroyedError, FoedusError, IntegrityError, RunError, UsageError
from core.keys import Key, PublicKey, address_of
from core.storage import groups, sealing
from core.storage.blobs import Blobs
from core.storage.groups import GROUPS, Group
from core.storage.readers import Readers
from core.storage.sealing import Wraps
from core.wire import Packed, Travelling

SEALED, KEYS = ".sealed", ".keys"
MOST_WRAPS = 8
"""Wraps of one key. An audit computes each again: of 16 members they were half of its time, of 1,000 nearly all."""


class Unlocked(NamedTuple):
    """Something in the store, as its wraps were opened: an audit reads it, and computes the wraps again."""

    place: str
    wraps: Wraps
    key: bytes


@dataclass(frozen=True)
class Artifacts:
    """The sealed store of one run; without a key it can be written but not read."""

    blobs: Blobs
    salt: str
    readers: Readers
    key: Key | None
    former: Key | None = None
    """The key that `key` replaces, while what it could open is sealed again."""
    _groups: dict[Address, Group] = field(default_factory=dict, init=False, compare=False)
    """Those that were opened, by address."""

    def place(self, name: Digest) -> str:
        """Under which name a state is stored: nobody without the genesis can tell which state it is."""
        text = hmac.digest(bytes.fromhex(self.salt), domain("block") + raw(name), "sha256").hex()
        return f"blocks/{text[:2]}/{text[2:]}"

    def put(self, state: Travelling, members: Collection[Address] | None = None) -> Digest:
        """Store a state, or its bytes, for these organisations (all by default), the coordinator and the auditors.

        Storing it again only lets in whoever could not read it yet.
        """
        self._put(self.place(state.digest), state.parts(), members)
        return state.digest

    def open(self, name: Digest) -> AdapterState:
        """A state; raises what `open_packed` raises, and FormatError for bytes that are none."""
        return self.open_packed(name).state

    def open_packed(self, name: Digest, unlocked: Unlocked | None = None) -> Packed:
        """The bytes of a state, decrypted into memory, their digest checked; `unlocked` is its key where it is known.

        Raises DestroyedError when its key was destroyed, other IntegrityErrors when it is missing, sealed for others,
        or its bytes are not those of the digest; UsageError when no key was given.
        """
        # The label proves the place alone; the digest proves the state.
        data = self._open(place := self.place(name), unlocked)
        packed = Packed(data)
        if packed.digest != name:
            raise IntegrityError(f"artifact {place}: expected digest {name}, got {packed.digest}")
        return packed

    def share(self, name: Digest, members: Collection[Address] | None = None) -> None:
        """Let those read a state who cannot yet, as `put` would; nothing where none is stored."""
        if self._has(place := self.place(name)):
            self._put(place, (), members)

    def destroy(self, name: Digest) -> None:
        """Destroy the key of a state: no copy of its bytes can be read again, by anyone."""
        self.blobs.remove(self.place(name) + KEYS)

    def put_document(self, name: str, data: bytes, members: Collection[Address] | None = None) -> None:
        """Store a copy of a document of the run folder (``genesis.json``)."""
        self._put(name.removesuffix(".json"), [data], members)

    def open_document(self, name: str, unlocked: Unlocked | None = None) -> bytes:
        """A document; raises what `open` raises."""
        return self._open(name.removesuffix(".json"), unlocked)

    def destroy_document(self, name: str) -> None:
        """Destroy the key of a document's copy."""
        self.blobs.remove(name.removesuffix(".json") + KEYS)

    def remove_document(self, name: str) -> None:
        """Remove a document's copy, which there need not be: another may take its place."""
        self._remove(name.removesuffix(".json"))

    def size(self, name: Digest) -> int:
        """The bytes that a state takes; 0 where there is none."""
        with suppress(OSError):
            return len(self.blobs.read(self.place(name) + SEALED))
        return 0

    def remove(self, name: Digest) -> None:
        """Remove a state, which there need not be."""
        self._remove(self.place(name))

    def _remove(self, place: str) -> None:
        for suffix in (KEYS, SEALED):
            self.blobs.remove(place + suffix)

    def reseal(self) -> None:
        """Wrap every key that a replaced key could open for the one that replaced it, and for the old one no more.

        Whoever has kept a copy of the wraps reads what they hold. Raises as `open` does, for what this key cannot open.
        """
        current = {address_of(reader) for reader in self.readers.of()}
        places = [name.removesuffix(KEYS) for name in self.blobs.names() if name.endswith(KEYS)]
        joint = {place.removeprefix(f"{GROUPS}/") for place in places if place.startswith(f"{GROUPS}/")}
        for place in places:
            wraps = self._wraps(place)
            if not set(wraps.wraps) <= current | joint:
                owners = set(map(self.readers.owner, wraps.wraps))
                readers = [reader for reader in self.readers.of() if self.readers.owner(address_of(reader)) in owners]
                shared = [group.key.public for address in wraps.wraps if (group := self._group(address))]
                self._write_wraps(place, Wraps.of(self._key_of(place, wraps), _label(place), [*readers, *shared]))
        self._groups.clear()

    def documents(self) -> list[str]:
        """The names of all stored documents."""
        stored = (name.removesuffix(SEALED) for name in self.blobs.names() if name.endswith(SEALED))
        return [f"{name}.json" for name in stored if not name.startswith("blocks/")]

    def unlock(self, place: str) -> Unlocked:
        """The key of something that is stored; raises what `open` raises."""
        wraps = self._wraps(place)
        return Unlocked(place, wraps, self._key_of(place, wraps))

    def check_block(self, place: str) -> None:
        """Raise IntegrityError unless a block holds the state that it is named for."""
        if self.place(digest("adapter", self._open(place))) != place:
            raise IntegrityError(f"artifact {place} holds another state")

    def check_wraps(self, unlocked: Unlocked, members: Collection[Address] | None = None) -> None:
        """Raise IntegrityError unless each of these organisations, the coordinator and the auditors can open a key.

        Every wrap is computed again from the key, and every wrap of a group's key from that.
        """
        place, wraps, key = unlocked
        known = {address_of(reader): reader for reader in self.readers.of()}
        joint = [group for address in wraps.wraps if address not in known and (group := self._group(address))]
        reached = set(wraps.wraps).union(*(group.readers for group in joint))
        if missing := [a for reader in self.readers.of(members) if (a := address_of(reader)) not in reached]:
            raise IntegrityError(f"artifact {place} is not sealed for {missing[0]}")
        listed = [reader for address, reader in known.items() if address in wraps.wraps]
        expected = Wraps.of(key, _label(place), [*listed, *(group.key.public for group in joint)])
        if expected != wraps:
            odd = [a for a in sorted(wraps.wraps) if wraps.wraps[a] != expected.wraps.get(a)]
            raise IntegrityError(f"artifact {place} has a wrap for {odd[0] if odd else 'nobody'} that does not open")

    def check_group(self, address: Address) -> None:
        """Raise IntegrityError unless a group's key opens with the key here, and for each of its readers."""
        if (group := self._group(address)) is None:
            raise IntegrityError(f"group {address} is one of other readers")
        _ = group.readers

    def _put(self, place: str, parts: Iterable[bytes | memoryview], members: Collection[Address] | None) -> None:
        label, readers = _label(place), self._wrapped_for(members)
        if self._has(place):
            wraps = self._wraps(place)
            # Readers are only added: a lane that shares the state must not lock another one out.
            if any(address_of(reader) not in wraps.wraps for reader in readers):
                joint = [group.key.public for address in wraps.wraps if (group := self._group(address))]
                known = [reader for reader in self.readers.of() if address_of(reader) in wraps.wraps]
                wider = dict.fromkeys((*known, *joint, *readers))
                self._write_wraps(place, Wraps.of(self._key_of(place, wraps), label, wider))
            return
        key = secrets.token_bytes(sealing.KEY_BYTES)
        # Ciphertext first: a crash in between leaves bytes without a key, which count as not stored.
        self.blobs.write(place + SEALED, sealing.seal(key, label, parts))
        self._write_wraps(place, Wraps.of(key, label, readers))

    def _wrapped_for(self, members: Collection[Address] | None) -> tuple[PublicKey, ...]:
        """The readers that a key is wrapped for: each of few, the group of many, whose key is written first."""
        if len(readers := self.readers.of(members)) <= MOST_WRAPS:
            return readers
        own = next((key for key in self._own if key.public == self.readers.coordinator), None)
        if own is None:
            raise UsageError(f"expected the coordinator's key to write for {len(readers)} readers, got another")
        key = groups.key_of(own, self.salt, readers)
        if not self.blobs.has((place := f"{GROUPS}/{key.address}") + KEYS):
            self._write_wraps(place, Wraps.of(key.secret, groups.label(key.address), readers))
        return (key.public,)

    def _group(self, address: Address) -> Group | None:
        """The group of this address, its key opened; None where there is none, or one of others."""
        if not self._own or not self.blobs.has((place := f"{GROUPS}/{address}") + KEYS):
            return None
        if address not in self._groups and (own := self._reader_of(wraps := self._wraps(place))):
            self._groups[address] = Group.opened(address, wraps, own, self.readers.of())
        return self._groups.get(address)

    @property
    def _own(self) -> tuple[Key, ...]:
        """The keys to read and write with, the newest first."""
        return tuple(key for key in (self.key, self.former) if key)

    def _reader_of(self, wraps: Wraps) -> Key | None:
        """The first of them that something is wrapped for."""
        return next((key for key in self._own if key.address in wraps.wraps), None)

    def _has(self, place: str) -> bool:
        """Whether something is stored with its key; raises RunError when the store cannot be reached."""
        try:
            return self.blobs.has(place + KEYS) and self.blobs.has(place + SEALED)
        except OSError as error:
            raise RunError(f"artifact {place} cannot be stored: {error}") from error

    def _open(self, place: str, unlocked: Unlocked | None = None) -> bytes:
        _, _, key = unlocked or self.unlock(place)
        try:
            return sealing.unseal(key, _label(place), self.blobs.read(place + SEALED))
        except (OSError, IntegrityError) as error:
            raise IntegrityError(f"artifact {place} cannot be read: {error}") from error

    def _key_of(self, place: str, wraps: Wraps) -> bytes:
        if self.key is None:
            raise UsageError(f"artifact {place} is sealed: expected the key file of one of its readers, got none")
        try:
            own = self._reader_of(wraps)
            joint = () if own else filter(None, map(self._group, wraps.wraps))
            return wraps.open(_label(place), own or next((group.key for group in joint), self.key))
        except (FoedusError, OSError) as error:
            raise IntegrityError(f"artifact {place} cannot be read: {error}") from error

    def _wraps(self, place: str) -> Wraps:
        try:
            data = bytes(self.blobs.read(place + KEYS))
        except FileNotFoundError as error:
            # Bytes without a key were erased on purpose; no bytes at all were lost.
            if self.blobs.has(place + SEALED):
                raise DestroyedError(f"artifact {place} was destroyed: nobody has its key") from error
            raise IntegrityError(f"artifact {place} cannot be read: there is none") from error
        except OSError as error:
            raise IntegrityError(f"artifact {place} cannot be read: {error}") from error
        try:
            wraps = Wraps.from_dict(from_json(data))
        except FoedusError as error:
            raise IntegrityError(f"artifact {place} has malformed keys: {error}") from error
        return wraps

    def _write_wraps(self, place: str, wraps: Wraps) -> None:
        self.blobs.write(place + KEYS, [to_json(wraps.to_dict())])


def _label(place: str) -> bytes:
    """What ciphertext and wraps are bound to: a block's name, which is keyed from its digest, or a document's."""
    return domain("sealed") + place.encode()
