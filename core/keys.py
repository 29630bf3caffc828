"""secp256k1 keys, and EIP-712 signatures bound to one chain and one contract.

An organisation's Ethereum address is its identity. A key is 32 bytes in a file of mode 0600 outside the checkout;
in a simulation it is derived from the seed and the organisation's name, as development chains derive their
accounts: such a key is public and protects nothing. Signatures are 65 bytes r ‖ s ‖ v with s in the lower half of the
group order: the upper twin of a signature recovers the same address and is refused.

A file holds a key in the open, mode 0600, or encrypted under a passphrase as Ethereum's wallets do (keystore, version
3). Whoever signs need not hold a key at all: see `SigningKey` in core/signed.py.
"""

import grp
import hashlib
import hmac
import json
import os
import pwd
import re
import secrets
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NewType, Protocol

import py_ecc  # noqa: F401 - before the limit of recursion
from eth_hash.auto import keccak
from eth_keys import KeyAPI
from eth_keys.constants import SECPK1_N

from core.canonical import Address, Digest, domain, parse_json, raw
from core.eip712 import Fields, struct_hash
from core.errors import ForgeryError, FormatError, UsageError

# py_ecc, which eth_account brings, sets 100,000 when it is imported: deep nesting would then end the process, and not
# raise RecursionError.
sys.setrecursionlimit(1000)

Signature = NewType("Signature", str)
"""``0x`` and 130 hex digits."""

PublicKey = NewType("PublicKey", str)
"""A compressed point of secp256k1: ``0x``, 02 or 03, and 64 hex digits."""

_DOMAIN = (("name", "string"), ("version", "string"), ("chainId", "uint256"), ("verifyingContract", "address"))
_SIGNATURE = re.compile(r"0x[0-9a-f]{128}1[bc]")
_PUBLIC = re.compile(r"0x0[23][0-9a-f]{64}")
_SECRET = re.compile(rb"[0-9a-f]{64}\n?")
KEYSTORE_VARIABLE = "FOEDUS_PASSPHRASE_FILE"
"""The environment variable with the file of a keystore's passphrase, for commands that are given none."""


@dataclass(frozen=True)
class Domain:
    """The EIP-712 domain: a signature made for one chain and contract is worthless in another."""

    chain_id: int
    contract: Address

    def __str__(self) -> str:
        return f"contract {self.contract} on chain {self.chain_id}"

    def to_dict(self) -> dict[str, Any]:
        """The EIP712Domain struct."""
        return {
            "name": "Foedus",
            "version": "1",
            "chainId": self.chain_id,
            "verifyingContract": self.contract,
        }


class Struct(Protocol):
    """A value that is signed as an EIP-712 struct."""

    @property
    def struct(self) -> str:
        """The struct's name."""

    @property
    def struct_fields(self) -> Fields:
        """Its fields."""

    def message(self) -> dict[str, Any]:
        """Their values."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""


@dataclass(frozen=True)
class Key:
    """A secp256k1 private key; `derived` marks the public keys of simulations.

    `member` is the address that it speaks for in a federation where it has replaced another key; else its own.
    """

    secret: bytes = field(repr=False)
    derived: bool = False
    member: Address | None = None

    @cached_property
    def address(self) -> Address:
        """The Ethereum address in EIP-55 form."""
        return self.member or address_of(self.public)

    @cached_property
    def public(self) -> PublicKey:
        """The public key, for whom something may be sealed."""
        return _public(KeyAPI.PrivateKey(self.secret).public_key)

    def sign(self, domain: Domain, name: str, fields: Fields, message: Mapping[str, Any]) -> Signature:
        """Sign an EIP-712 struct `name` with the given fields."""
        made = KeyAPI.PrivateKey(self.secret).sign_msg_hash(hash_of(domain, name, fields, message)).to_bytes()
        return Signature("0x" + (made[:64] + bytes([27 + made[64]])).hex())

    def sign_statement(self, domain: Domain, statement: Struct) -> Signature:
        """Sign a statement."""
        return self.sign(domain, statement.struct, statement.struct_fields, statement.message())

    def salt_for(self, nonce: Digest) -> bytes:
        """HMAC-SHA256 of a digest under this key, which nobody else can compute (core/erasures.py has a use)."""
        return hmac.digest(self.secret, domain("records-salt") + raw(nonce), "sha256")

    def group_for(self, readers: Digest) -> "Key":
        """The key that a coordinator makes for a group of readers (core/storage/groups.py); the same each time."""
        return Key(hmac.digest(self.secret, domain("group-secret") + raw(readers), "sha256"))

    def nonce_for(self, asked: Digest) -> bytes:
        """The same for a part of a federation's seed, which no salt tells (client_app/agreement.py)."""
        return hmac.digest(self.secret, domain("nonce-secret") + raw(asked), "sha256")


def derive(seed: int, name: str) -> Key:
    """The key of an organisation in a simulation: SHA-256(tag ‖ seed ‖ name). Anybody can compute it."""
    return Key(hashlib.sha256(domain("derived-key") + f"{seed}\0{name}".encode()).digest(), derived=True)


def signer(signature: Signature, domain: Domain, name: str, fields: Fields, message: Mapping[str, Any]) -> Address:
    """The address that signed an EIP-712 struct; raises what `signing_key` raises."""
    return address_of(signing_key(signature, domain, name, fields, message))


def signing_key(
    signature: Signature, domain: Domain, name: str, fields: Fields, message: Mapping[str, Any]
) -> PublicKey:
    """The public key that signed an EIP-712 struct.

    Raises ForgeryError when the signature is malformed or is the upper twin of another.
    """
    data = _parsed(signature)
    # (r, n − s) recovers the same address: with it, one statement would have two signatures.
    if int.from_bytes(data[32:64], "big") > SECPK1_N // 2:
        raise ForgeryError("signature has its s value in the upper half of the group order")
    try:
        hashed = hash_of(domain, name, fields, message)
        plain = KeyAPI.Signature(data[:64] + bytes([data[64] - 27]))
        return _public(plain.recover_public_key_from_msg_hash(hashed))
    except Exception as error:
        raise ForgeryError(f"signature recovers no address: {error}") from error


def hash_of(domain: Domain, name: str, fields: Fields, message: Mapping[str, Any]) -> bytes:
    """The Keccak-256 hash of an EIP-712 struct, which is what a key signs; raises as `struct_hash` does."""
    hashed: bytes = keccak(b"\x19\x01" + _separator(domain) + struct_hash(name, fields, message))
    return hashed


def spelt(rs: bytes, hashed: bytes, public: PublicKey) -> Signature:
    """The signature r ‖ s of a hash in its one spelling, as hardware leaves s in either half and has no v.

    Raises ForgeryError when `public` did not make it.
    """
    r, s = rs[:32], int.from_bytes(rs[32:], "big")
    data = r + min(s, SECPK1_N - s).to_bytes(32, "big")
    for v in (0, 1):
        try:
            recovered = _public(KeyAPI.Signature(data + bytes([v])).recover_public_key_from_msg_hash(hashed))
        except Exception:  # noqa: BLE001, S112 - one of the two may be no point of the curve
            continue
        if recovered == public:
            return Signature("0x" + (data + bytes([27 + v])).hex())
    raise ForgeryError(f"signature: expected one of {public}, got {rs.hex()}")


def public_key(value: object) -> PublicKey:
    """The value as a public key; raises FormatError when it is no compressed point of the curve."""
    if isinstance(value, str) and _PUBLIC.fullmatch(value):
        try:
            address_of(PublicKey(value))
        except Exception as error:
            raise FormatError(f"public key {value} is no point of secp256k1: {error}") from error
        return PublicKey(value)
    raise FormatError(f"a public key is 0x, 02 or 03, and 64 lower-case hex digits, got {str(value)[:140]!r}")


@cache
def address_of(public: PublicKey) -> Address:
    """The Ethereum address that belongs to a public key."""
    return Address(KeyAPI.PublicKey.from_compressed_bytes(bytes.fromhex(public[2:])).to_checksum_address())


def create(path: Path, passphrase: str = "") -> Key:
    """Make a new key file of mode 0600, encrypted if there is a passphrase.

    Raises UsageError when the file exists or lies in a git checkout.
    """
    key = Key(secrets.token_bytes(32))
    content = json.dumps(_account().encrypt(key.secret, passphrase)) if passphrase else key.secret.hex()
    write_secret(path, f"{content}\n".encode())
    return key


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600; raises UsageError when it exists or lies in a git checkout."""
    if checkout := next((p for p in path.resolve().parents if (p / ".git").exists()), None):
        raise UsageError(f"key file {path} lies in the checkout {checkout}: choose a folder outside it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # O_EXCL and the mode at once: no moment at which others can read the key, and none is overwritten.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UsageError(f"key file {path} exists already: choose another name") from error
    except OSError as error:
        raise UsageError(f"key file {path}: expected a writable folder, got {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def read(path: Path, passphrase: Path | None = None) -> Key:
    """Read a key file; `passphrase` is the file of a keystore's, else $FOEDUS_PASSPHRASE_FILE.

    Raises UsageError when it is missing, malformed, or readable by others, or the passphrase is not its own.
    """
    try:
        data = path.read_bytes()
        found = path.stat()
    except OSError as error:
        raise UsageError(f"key file {path}: expected a file of 64 hex digits, got {error.strerror}") from error
    mode = stat.S_IMODE(found.st_mode)
    if not is_own(found):
        raise UsageError(f"key file {path}: expected mode 0600, got {mode:04o}, with which others can read it")
    if data.startswith(b"{"):
        return Key(_decrypted(path, data, passphrase))
    if not _SECRET.fullmatch(data) or not 0 < int(data, 16) < SECPK1_N:
        got = f"{len(data)} bytes that are none"
        raise UsageError(f"key file {path}: expected 64 lower-case hex digits of a key, got {got}")
    return Key(bytes.fromhex(data.decode("ascii")))


def is_own(found: os.stat_result) -> bool:
    """Whether nobody else can reach a file.

    Root may have given it to this process by a group of its own, as Kubernetes mounts a secret.
    """
    if not found.st_mode & 0o077:
        return True
    if found.st_mode & 0o037 or found.st_uid or not os.geteuid() or found.st_gid not in (os.getegid(), *os.getgroups()):
        return False
    # A group that another user of the machine is in shares the key with him.
    members = {entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == found.st_gid}
    members |= {name for entry in grp.getgrall() if entry.gr_gid == found.st_gid for name in entry.gr_mem}
    own = {entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == os.geteuid()}
    return members <= own


def read_passphrase(path: Path) -> str:
    """The first line of a file that no other user can read; raises UsageError."""
    try:
        text, mode = path.read_text(encoding="utf-8"), stat.S_IMODE(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise UsageError(f"passphrase file {path}: expected a line of text, got {error}") from error
    # A credential of systemd has mode 0440, and a group of its own.
    if mode & 0o007:
        raise UsageError(f"passphrase file {path}: expected mode 0600, got {mode:04o}, with which others can read it")
    if not (line := text.split("\n", 1)[0].rstrip("\r")):
        raise UsageError(f"passphrase file {path}: expected a line of text, got an empty one")
    return line


def _decrypted(path: Path, data: bytes, passphrase: Path | None) -> bytes:
    if passphrase is None and KEYSTORE_VARIABLE not in os.environ:
        raise UsageError(f"keystore {path}: expected its passphrase, got none: name its file in ${KEYSTORE_VARIABLE}")
    given = read_passphrase(passphrase or Path(os.environ[KEYSTORE_VARIABLE]).expanduser())
    try:
        return bytes(_account().decrypt(parse_json(data), given))
    # eth_account raises errors of many kinds for a damaged keystore, and ValueError for another passphrase.
    except Exception as error:
        raise UsageError(f"keystore {path}: expected its own passphrase, got another, or a damaged file") from error


def _account() -> Any:
    """Ethereum's wallet functions, for keystores alone."""
    from eth_account import Account  # noqa: PLC0415 - half a second of imports

    return Account


def _public(key: KeyAPI.PublicKey) -> PublicKey:
    return PublicKey("0x" + key.to_compressed_bytes().hex())


@cache
def _separator(domain: Domain) -> bytes:
    return struct_hash("EIP712Domain", _DOMAIN, domain.to_dict())


def _parsed(signature: Signature) -> bytes:
    """The 65 bytes; one signature has one spelling (lower case, v 27 or 28), so that no other file can hold it."""
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        raise ForgeryError(
            f"signature: expected 0x and 130 hex digits ending in 1b or 1c, got {str(signature)[:140]!r}"
        )
    return bytes.fromhex(signature[2:])
