"""A folder's signature in the OpenSSF Model Signing format, and signed in-toto statements.

MODEL/model.sig is a Sigstore bundle with a DSSE envelope (https://github.com/secure-systems-lab/dsse) around an in-toto
statement that lists every file with its SHA-256. Signed is with ECDSA on P-256, a curve that the format allows and that
secp256k1, on which the federation's own keys are, is not. `model_signing verify key` checks it without this project.
"""

import base64
import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec

from core import keys
from core.canonical import parse_json, to_json
from core.errors import ForgeryError, FormatError, UsageError

SIGNATURE = "model.sig"
"""The signature's file in the folder that it is about."""
STATEMENT = "https://in-toto.io/Statement/v1"
_PAYLOAD = "application/vnd.in-toto+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PREDICATE = "https://model_signing/signature/v1.0"
# A hub and git add these to a folder on its way, and they change nothing of a model.
_IGNORED = (SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore")

Json = dict[str, Any]


@dataclass(frozen=True)
class FileKey:
    """An ECDSA key on P-256 that signs files."""

    private: ec.EllipticCurvePrivateKey

    @cached_property
    def public(self) -> bytes:
        """The public key as PEM."""
        return self.private.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)

    @property
    def name(self) -> str:
        """SHA-256 of the public key's PEM in hex: how signatures name the key."""
        return hashlib.sha256(self.public).hexdigest()

    def envelope(self, statement: Mapping[str, Any]) -> Json:
        """A statement in a DSSE envelope."""
        payload = to_json(statement)
        signature = self.private.sign(_signed_bytes(payload), ec.ECDSA(hashes.SHA256()))
        return {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"keyid": self.name, "sig": base64.b64encode(signature).decode()}],
        }

    def sign_folder(self, folder: Path) -> Path:
        """Write the signature of every file that lies in `folder` now; returns its path."""
        files = file_digests(folder)
        options = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": list(_IGNORED)}
        resources = [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in files.items()]
        # The subject's digest is that of all digests in order.
        whole = hashlib.sha256(b"".join(map(bytes.fromhex, files.values()))).hexdigest()
        statement = {
            "_type": STATEMENT,
            "subject": [{"name": folder.name, "digest": {"sha256": whole}}],
            "predicateType": _PREDICATE,
            "predicate": {"serialization": options, "resources": resources},
        }
        bundle = {
            "mediaType": _BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": self.name}, "tlogEntries": []},
            "dsseEnvelope": self.envelope(statement),
        }
        path = folder / SIGNATURE
        path.write_bytes(to_json(bundle))
        return path


def file_key(path: Path) -> FileKey:
    """The key in a PEM file of mode 0600; one is made where there is none, its public half beside it as NAME.pub.

    Raises UsageError for a file that others can read, or that holds no key on P-256.
    """
    if not path.exists():
        key = FileKey(ec.generate_private_key(ec.SECP256R1()))
        private = key.private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
        keys.write_secret(path, private)
        path.with_suffix(".pub").write_bytes(key.public)
        return key
    found = path.stat()
    if not keys.is_own(found):
        raise UsageError(
            f"key file {path}: expected mode 0600, got {found.st_mode & 0o777:04o}, with which others can read it"
        )
    try:
        private_key = pem.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"key file {path}: expected a private key as PEM without passphrase, got {error}") from error
    if not isinstance(private_key, ec.EllipticCurvePrivateKey) or private_key.curve.name != "secp256r1":
        raise UsageError(f"key file {path}: expected an EC key on P-256, got another: openssl ecparam -name prime256v1")
    return FileKey(private_key)


def file_digests(folder: Path, ignored: Collection[str] = _IGNORED) -> dict[str, str]:
    """SHA-256 in hex of every file of a folder by its path, in order; `ignored` are names at its top."""
    found = {}
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder)
        if name.parts[0] not in ignored and path.is_file():
            with path.open("rb") as file:
                found[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def verified_folder(folder: Path, public: bytes) -> dict[str, str]:
    """The files of a folder by path, with their SHA-256, as its signature by a public key (PEM) lists them.

    Raises UsageError for what is no such key, FormatError for a signature that is none of this kind, ForgeryError when
    another key made it, or a file was changed, added or left out.
    """
    signed, ignored = _signed(folder, public)
    here = file_digests(folder, ignored)
    if changed := sorted(name for name in {*signed, *here} if signed.get(name) != here.get(name)):
        raise ForgeryError(f"{folder}: expected the files that were signed, got {changed[0]} changed, added or missing")
    return here


def signed_files(folder: Path, public: bytes) -> dict[str, str]:
    """The files that a folder's signature by a public key lists, with their SHA-256; those here are not looked at.

    Raises as `verified_folder` does, unless for what lies in the folder.
    """
    return _signed(folder, public)[0]


def _signed(folder: Path, public: bytes) -> tuple[dict[str, str], set[str]]:
    """The files that a signature lists, and the names at the top of the folder that it leaves out."""
    bundle = parse_json((folder / SIGNATURE).read_bytes())
    statement = opened(bundle.get("dsseEnvelope") if isinstance(bundle, dict) else None, public)
    try:
        predicate = statement["predicate"]
        serialization = predicate["serialization"]
        kind = (statement["predicateType"], serialization["method"], serialization["hash_type"])
        signed = {one["name"]: one["digest"] for one in predicate["resources"]}
        ignored = {*_IGNORED, *serialization.get("ignore_paths", ())}
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{folder / SIGNATURE}: expected a list of files, got none: {error!r}") from error
    if kind != (_PREDICATE, "files", "sha256"):
        raise FormatError(f"{folder / SIGNATURE}: expected SHA-256 of files as {_PREDICATE}, got {kind}")
    return signed, ignored


def opened(envelope: Any, public: bytes) -> Json:
    """The statement in a DSSE envelope; raises UsageError, FormatError or ForgeryError as `verified_folder` does."""
    try:
        key = pem.load_pem_public_key(public)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"expected a public key as PEM, got {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError("expected the public key of an EC key, got another kind")
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise FormatError(f"signature: expected a DSSE envelope, got none: {error!r}") from error
    # As the format has it: the longer the curve, the longer the hash.
    hashed = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}.get(key.curve.key_size)
    try:
        key.verify(signature, _signed_bytes(payload), ec.ECDSA(hashed or hashes.SHA256()))
    except InvalidSignature as error:
        raise ForgeryError("signature: expected one by the given key, got another") from error
    statement = parse_json(payload)
    if not isinstance(statement, dict) or statement.get("_type") != STATEMENT:
        raise FormatError(f"signature: expected a statement {STATEMENT}, got another")
    return statement


def signing_key_path(given: Path | None) -> Path:
    """Where the key that signs exports and dossiers lies, where none is given."""
    return (given or Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config", "foedus", "signing.pem")).expanduser()


def _signed_bytes(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return f"DSSEv1 {len(_PAYLOAD)} {_PAYLOAD} {len(payload)} ".encode() + payload
