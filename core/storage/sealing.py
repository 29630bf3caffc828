r"""Sealed bytes: encrypted under a key of their own, which is wrapped for each of its readers.

A key seals once: AES-256-GCM under 32 random bytes, with a label as associated data. It is wrapped by ECIES on the
readers' secp256k1 keys, all wraps of a key with one ephemeral key that is derived from it:

    e         = HKDF(key, "foedus/ephemeral/v1\0" ‖ label), the ephemeral secret
    shared_i  = ECDH(e, P_i), as libsecp256k1 gives it: SHA-256 of the compressed point
    wrap_i    = AES-256-GCM(HKDF(shared_i, "foedus/wrap/v1\0" ‖ label ‖ e·G ‖ P_i), key)

Since nothing but the key is random (as in Fujisaki and Okamoto, 1999), whoever holds it can compute every wrap again:
an auditor finds a wrap that its reader could not open. The keys of GCM are used once, so its nonce is zero.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from coincurve import PrivateKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from eth_keys.constants import SECPK1_N

from core.canonical import Address, address, domain
from core.errors import FormatError, IntegrityError
from core.keys import Key, PublicKey, address_of, public_key

TAG_BYTES = 16
KEY_BYTES = 32
_NONCE = bytes(12)


@dataclass(frozen=True)
class Wraps:
    """A key as each of its readers can open it: 48 bytes for every address, and the ephemeral public key."""

    ephemeral: PublicKey
    wraps: Mapping[Address, str]

    @classmethod
    def of(cls, key: bytes, label: bytes, readers: Iterable[PublicKey]) -> Self:
        """Wrap a key for its readers; the same key, label and readers give the same wraps."""
        ephemeral = PrivateKey(_ephemeral(key, label))
        public = ephemeral.public_key.format()
        wraps = {}
        for reader in readers:
            point = bytes.fromhex(reader[2:])
            wrapping = _wrapping(ephemeral.ecdh(point), label, public, point)
            wraps[address_of(reader)] = AESGCM(wrapping).encrypt(_NONCE, key, None).hex()
        return cls(PublicKey("0x" + public.hex()), wraps)

    def open(self, label: bytes, reader: Key) -> bytes:
        """The key; raises IntegrityError when it is not wrapped for this reader, or its wrap was changed."""
        wrap = self.wraps.get(reader.address)
        if wrap is None:
            raise IntegrityError(
                f"expected the key of a reader, got that of {reader.address}, for whom it is not sealed"
            )
        public = bytes.fromhex(self.ephemeral[2:])
        wrapping = _wrapping(PrivateKey(reader.secret).ecdh(public), label, public, bytes.fromhex(reader.public[2:]))
        try:
            return AESGCM(wrapping).decrypt(_NONCE, bytes.fromhex(wrap), None)
        except InvalidTag as error:
            raise IntegrityError(f"the key wrapped for {reader.address} does not open") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"ephemeral": self.ephemeral, "wraps": dict(self.wraps)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        try:
            (ephemeral, wraps) = data["ephemeral"], data["wraps"]
            parsed = cls(public_key(ephemeral), {address(reader): _wrap(wrap) for reader, wrap in wraps.items()})
        except (AttributeError, KeyError, TypeError) as error:
            raise FormatError(f"malformed key wraps: {error}") from error
        if set(data) != {"ephemeral", "wraps"}:
            raise FormatError(f"malformed key wraps: {sorted(data)}")
        return parsed


def seal(key: bytes, label: bytes, parts: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Encrypt data that comes in parts: as many bytes as went in, and a tag of 16. A key may be used once."""
    encryptor = Cipher(algorithms.AES(key), modes.GCM(_NONCE)).encryptor()
    # Ciphertext moved under another name no longer opens.
    encryptor.authenticate_additional_data(label)
    for part in parts:
        yield encryptor.update(part)
    yield encryptor.finalize() + encryptor.tag


def unseal(key: bytes, label: bytes, sealed: bytes | memoryview) -> bytes:
    """What was sealed under this key and label; raises IntegrityError for anything else."""
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, label)
    except InvalidTag as error:
        raise IntegrityError("the sealed bytes were changed, or sealed under another key or name") from error


def _ephemeral(key: bytes, label: bytes) -> bytes:
    """A secret of the curve's order: 48 bytes reduced, so that no value is likelier than another."""
    # 128 bits more than the order has: what the remainder favours is beyond measuring.
    wide, order = int.from_bytes(_derived(key, domain("ephemeral") + label, 48), "big"), int(SECPK1_N)
    return (wide % (order - 1) + 1).to_bytes(32, "big")


def _wrapping(shared: bytes, label: bytes, ephemeral: bytes, reader: bytes) -> bytes:
    return _derived(shared, domain("wrap") + label + ephemeral + reader, KEY_BYTES)


def _derived(secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, None, info).derive(secret)


def _wrap(text: object) -> str:
    if (
        not isinstance(text, str)
        or len(text) != 2 * (KEY_BYTES + TAG_BYTES)
        or not set(text) <= set("0123456789abcdef")
    ):
        raise FormatError(f"a wrapped key is 96 lower-case hex digits, got {str(text)[:100]!r}")
    return text
