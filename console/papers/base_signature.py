"""Whether a base model is signed: its folder's model.sig, by a public key that the reader has from its publisher."""

import hashlib
from pathlib import Path

from assets import BASE_MODEL
from console.options import read_file
from core.canonical import Digest
from core.errors import ForgeryError
from core.model_signature import SIGNATURE, signed_files
from llm import bases

NOT_SIGNED = "not signed: no model.sig lies with it"
NOT_CHECKED = "it has a model.sig, which was not checked: --base-key"
NOT_HERE = "not known: the base does not lie here"


def base_signature(name: str, expected: Digest, key: Path | None) -> str:
    """What is known of the signature of the base of a genesis, in words; nothing is downloaded without a `key`.

    Raises UsageError for a key that is none, FormatError or ForgeryError where the base is not signed by it, ModelError
    where the base is not here.
    """
    place = bases.located(name, expected)
    if key is None and not _lies_here(place):
        return NOT_HERE
    folder = bases.find(place)
    if key is None:
        return NOT_CHECKED if (folder / SIGNATURE).is_file() else NOT_SIGNED
    public = read_file("--base-key", key, "a public key as PEM")
    check_signed(folder, expected, public)
    return f"signed by key {hashlib.sha256(public).hexdigest()}"


def check_signed(folder: Path, expected: Digest, public: bytes) -> None:
    """Raise ForgeryError or FormatError unless every file that decides how the base behaves is signed by a key.

    Others, as a card, may have been left out on the way here.
    """
    if (got := bases.digest_of(folder)) != expected:
        raise ForgeryError(f"base model {folder}: expected {expected} as in the genesis, got {got}")
    if not (folder / SIGNATURE).is_file():
        raise ForgeryError(f"base model {folder}: expected {SIGNATURE} in it, got none: it is not signed")
    signed = signed_files(folder, public)
    for file, digest in bases.deciding_files(folder).items():
        if signed.get(file) != digest:
            raise ForgeryError(f"base model {folder}: expected the files that were signed, got {file} changed or added")


def _lies_here(place: str) -> bool:
    return place in (bases.SMOLLM2, BASE_MODEL) or Path(place).expanduser().is_dir()
