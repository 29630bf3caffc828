"""Signatures of folders: what the model-signing package accepts, and what nobody accepts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import signing, verifying
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from core.errors import FoedusError, ForgeryError, FormatError, UsageError
from core.model_signature import SIGNATURE, FileKey, file_key, opened, verified_folder


@pytest.fixture
def key(tmp_path: Path) -> FileKey:
    return file_key(tmp_path / "keys" / "signing.pem")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "inner" / "Card.md").write_text("card", encoding="utf-8")
    (folder / "inner-2").write_text("sorts before inner/", encoding="utf-8")
    return folder


def independent(folder: Path, tmp_path: Path) -> None:
    """Verify as a user of the model-signing package does."""
    config = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "keys" / "signing.pub")
    config.verify(folder, folder / SIGNATURE)


def test_the_model_signing_package_verifies_a_folder(key: FileKey, model: Path, tmp_path: Path) -> None:
    key.sign_folder(model)
    independent(model, tmp_path)
    assert set(verified_folder(model, key.public)) == {"weights.safetensors", "inner/Card.md", "inner-2"}


def test_a_folder_that_moved_or_came_through_git_still_verifies(key: FileKey, model: Path, tmp_path: Path) -> None:
    key.sign_folder(model)
    (moved := model.rename(tmp_path / "elsewhere") / ".gitattributes").write_text("*", encoding="utf-8")
    independent(moved.parent, tmp_path)
    assert verified_folder(moved.parent, key.public)


def changed(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"other weights")


def added(folder: Path) -> None:
    (folder / "inner" / "more.py").write_text("", encoding="utf-8")


def removed(folder: Path) -> None:
    (folder / "inner-2").unlink()


@pytest.mark.parametrize("change", [changed, added, removed])
def test_a_file_that_was_changed_added_or_removed_is_found(
    key: FileKey, model: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    key.sign_folder(model)
    change(model)
    with pytest.raises(ForgeryError, match="expected the files that were signed, got "):
        verified_folder(model, key.public)
    with pytest.raises(ValueError, match="Signature mismatch"):
        independent(model, tmp_path)


def test_another_key_has_not_signed(key: FileKey, model: Path, tmp_path: Path) -> None:
    file_key(tmp_path / "other.pem").sign_folder(model)
    with pytest.raises(ForgeryError, match="expected one by the given key"):
        verified_folder(model, key.public)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_what_the_package_signs_is_verified_here(model: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    file = tmp_path / "theirs.pem"
    options = (pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    file.write_bytes(private.private_bytes(*options))
    signing.Config().use_elliptic_key_signer(private_key=file).sign(model, model / SIGNATURE)
    public = private.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    assert len(verified_folder(model, public)) == 3
    changed(model)
    with pytest.raises(ForgeryError):
        verified_folder(model, public)


def test_an_envelope_is_read_by_another_implementation_of_dsse(key: FileKey) -> None:
    statement = {"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": "x", "predicate": {}}
    envelope = key.envelope(statement)
    assert opened(envelope, key.public) == statement
    theirs = Envelope.from_dict(envelope)
    reader = SSlibKey.from_crypto(key.private.public_key(), keyid=key.name)
    assert list(theirs.verify([reader], 1)) == [key.name]
    assert json.loads(theirs.payload) == statement


@pytest.mark.parametrize(
    "content",
    [b"{}", b"[]", b"not JSON", b'{"dsseEnvelope": 1}', b'{"dsseEnvelope": {"payload": "a", "signatures": []}}'],
)
def test_what_is_no_signature_is_said_to_be_none(key: FileKey, model: Path, content: bytes) -> None:
    (model / SIGNATURE).write_bytes(content)
    with pytest.raises(FormatError):
        verified_folder(model, key.public)


@pytest.mark.parametrize("field", ["predicateType", "predicate"])
def test_a_statement_about_something_else_is_no_signature_of_files(key: FileKey, model: Path, field: str) -> None:
    envelope = json.loads(key.sign_folder(model).read_text(encoding="utf-8"))["dsseEnvelope"]
    statement = opened(envelope, key.public) | {field: "else"}
    (model / SIGNATURE).write_text(json.dumps({"dsseEnvelope": key.envelope(statement)}), encoding="utf-8")
    with pytest.raises(FormatError):
        verified_folder(model, key.public)


def test_a_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "new" / "signing.pem"
    made = file_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert file_key(path).public == made.public == path.with_suffix(".pub").read_bytes()
    path.chmod(0o640)
    with pytest.raises(UsageError, match="expected mode 0600, got 0640"):
        file_key(path)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----", b"\x00" * 64])
def test_a_file_that_holds_no_private_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "key.pem").touch(0o600)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="expected a private key as PEM"):
        file_key(path)


def test_a_key_on_another_curve_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "key.pem").touch(0o600)
    private = ec.generate_private_key(ec.SECP256K1())
    path.write_bytes(private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()))
    with pytest.raises(UsageError, match="expected an EC key on P-256"):
        file_key(path)


def test_what_is_no_public_key_is_said_to_be_none(key: FileKey, model: Path) -> None:
    key.sign_folder(model)
    with pytest.raises(FoedusError, match="expected a public key as PEM"):
        verified_folder(model, b"none")
