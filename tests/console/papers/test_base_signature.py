"""A base's own signature: made by the model-signing package, as its publisher makes it."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import signing

from console.papers.base_signature import NOT_CHECKED, NOT_HERE, NOT_SIGNED, base_signature
from core.canonical import ZERO_DIGEST
from core.errors import ForgeryError, FormatError, UsageError
from core.model_signature import SIGNATURE, file_key
from llm.bases import digest_of


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("card", encoding="utf-8")
    return folder


@pytest.fixture
def public(base: Path, tmp_path: Path) -> Path:
    """The publisher's public key, with which it has signed the base."""
    private = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "publisher.pem"
    file.write_bytes(private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()))
    signing.Config().use_elliptic_key_signer(private_key=file).sign(base, base / SIGNATURE)
    found = tmp_path / "publisher.pub"
    found.write_bytes(private.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))
    return found


def test_a_base_is_signed_by_the_key_that_was_given(base: Path, public: Path) -> None:
    told = base_signature(str(base), digest_of(base), public)
    assert told == f"signed by key {hashlib.sha256(public.read_bytes()).hexdigest()}"
    assert base_signature(str(base), digest_of(base), None) == NOT_CHECKED


def test_what_does_not_decide_how_it_behaves_may_be_left_out(base: Path, public: Path) -> None:
    (base / "README.md").unlink()
    assert base_signature(str(base), digest_of(base), public).startswith("signed by key")


def test_without_a_key_it_is_said_that_nothing_was_checked(base: Path) -> None:
    assert base_signature(str(base), digest_of(base), None) == NOT_SIGNED
    assert base_signature("foedus-tiny", ZERO_DIGEST, None) == NOT_SIGNED
    assert base_signature("OWNER/NAME", ZERO_DIGEST, None) == NOT_HERE


def changed(base: Path) -> None:
    (base / "model.safetensors").write_bytes(b"others")


def added(base: Path) -> None:
    (base / "tokenizer.json").write_text("{}", encoding="utf-8")


def unsigned(base: Path) -> None:
    (base / SIGNATURE).unlink()


@pytest.mark.parametrize(
    ("change", "got"), [(changed, "model.safetensors"), (added, "tokenizer.json"), (unsigned, "it is not signed")]
)
def test_a_base_that_was_changed_or_is_not_signed_is_refused(
    base: Path, public: Path, change: Callable[[Path], None], got: str
) -> None:
    change(base)
    with pytest.raises(ForgeryError, match=got):
        base_signature(str(base), digest_of(base), public)


def test_another_key_another_base_and_no_key_are_refused(base: Path, public: Path, tmp_path: Path) -> None:
    file_key(tmp_path / "other.pem")
    with pytest.raises(ForgeryError, match="expected one by the given key"):
        base_signature(str(base), digest_of(base), tmp_path / "other.pub")
    shutil.copytree(base, tmp_path / "another")
    with pytest.raises(ForgeryError, match="as in the genesis"):
        base_signature(str(tmp_path / "another"), ZERO_DIGEST, public)
    with pytest.raises(UsageError, match="--base-key"):
        base_signature(str(base), digest_of(base), tmp_path / "nowhere")
    (base / SIGNATURE).write_text("{}", encoding="utf-8")
    with pytest.raises(FormatError):
        base_signature(str(base), digest_of(base), public)
