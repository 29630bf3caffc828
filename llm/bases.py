"""A base model's name, as the folder with its files: `foedus-tiny`, `smollm2`, a folder, or a name on the Hub.

Finding a folder needs no torch. `smollm2` comes in a Python package, in a format that nobody trains on: it is converted
once and lies in a cache of the user's that every process finds, Flower's too, which run in folders of their own.
"""

import hashlib
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

import assets
from core.canonical import Digest, digest, parse_json, to_json
from core.errors import FormatError, ModelError
from core.model_signature import SIGNATURE
from core.storage.lock import take

SMOLLM2 = "smollm2"
SMOLLM2_KEY = "smollm2-0.1.2-1"
"""The package's version and the conversion's: another of either is another folder, and another digest."""
INDEX = "model.safetensors.index.json"
"""The index of sharded weights."""
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    INDEX,
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates/*",
    "merges.txt",
    "vocab*",
    "*.model",
    "*.tiktoken",
    "tekken.json",
)
"""The files of a base that decide its behaviour: read, fetched and, with the shards that INDEX names, digested."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""Beside the weights, they would be another model than the base alone: transformers applies them, others do not."""
_FETCHED = (*FILES, "*.safetensors", *ADAPTER_FILES, SIGNATURE)
_NOT_FETCHED = ("*/*.safetensors", "*/*.json", "*/*.model", "consolidated*")
"""The same weights in other forms, of which a repository may hold several."""
SHARE = "FOEDUS_SHARE_BASE"
"""The variable that asks, by any value, for one copy of a base for all processes of the machine."""
_PUBLISHED = {SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct"}
_LICENCES = {SMOLLM2: "Apache-2.0", assets.BASE_MODEL: "Apache-2.0"}
"""Of the bases that come with the project. A folder tells none that could be relied on."""

_logger = logging.getLogger(__name__)


def find(base: str) -> Path:
    """The folder of a base; smollm2 is converted, and a name on the Hub downloaded, when the cache does not hold it.

    Raises ModelError, which says what to install, when there is no such base.
    """
    if base == assets.BASE_MODEL:
        return assets.base_model()
    if base == SMOLLM2:
        return _converted(cache() / SMOLLM2_KEY)
    path = Path(base).expanduser()
    if base and path.is_dir():
        return path
    if path.is_absolute() or base.startswith((".", "~")) or base.count("/") != 1:
        names = f"{SMOLLM2}, {assets.BASE_MODEL}, a folder or OWNER/NAME"
        raise ModelError(f"base model {base!r}: expected {names}, got none of them: give its place with --base")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - most bases are no download, and it takes a second

    try:
        return Path(snapshot_download(base, allow_patterns=list(_FETCHED), ignore_patterns=list(_NOT_FETCHED)))
    except (OSError, ValueError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"base model {base!r}: expected a folder, or a name in the local cache or on the Hub, got neither ({why})"
        ) from error


def located(base: str, expected: Digest) -> str:
    """`base`, or of a folder that is no longer there, one near its place or the current folder with this digest.

    Looked at are folders two levels below the nearest one of its path that is still there. It is `base` again where
    none of them is the one.
    """
    path = Path(base).expanduser()
    if not path.is_absolute() or path.is_dir():
        return base
    near = next(parent for parent in path.parents if parent.is_dir())
    # A whole disk is no place to search.
    roots = {Path.cwd(), near} - {Path(near.anchor)}
    configs = {config for root in roots for level in ("*", "*/*") for config in root.glob(f"{level}/config.json")}
    for folder in sorted(config.parent for config in configs):
        with suppress(ModelError, OSError):
            if digest_of(folder) == expected:
                _logger.warning("The base %s is no longer there: found again in %s", base, folder)
                return str(folder)
    return base


def published(base: str) -> str:
    """The name under which others find a base: on the Hub where it is published there, else as it is."""
    return _PUBLISHED.get(base, base)


def licence_of(base: str) -> str:
    """The SPDX identifier of a base's licence; "" where it is not known here."""
    return _LICENCES.get(base, "")


def cache() -> Path:
    """The folder of converted bases: $FOEDUS_CACHE, else foedus in $XDG_CACHE_HOME, else ~/.cache/foedus.

    Raises ModelError when the first is relative; a relative $XDG_CACHE_HOME is ignored, as its specification says.
    """
    if own := os.environ.get("FOEDUS_CACHE"):
        if not Path(own).expanduser().is_absolute():
            raise ModelError(
                f"FOEDUS_CACHE: expected an absolute path, since Flower's processes run elsewhere, got {own!r}"
            )
        return Path(own).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path("~/.cache").expanduser()) / "foedus"


def digest_of(folder: Path) -> Digest:
    """SHA-256 under ``foedus/base/v1`` of the names and SHA-256 of every file that decides how the base behaves.

    Raises ModelError when its index names a shard that is not there.
    """
    return digest("base", to_json(deciding_files(folder)))


def deciding_files(folder: Path) -> dict[str, str]:
    """Every file that decides how a base behaves, by its path, with its SHA-256 in hex; raises as `digest_of`."""
    files: dict[str, str] = {}
    for path in sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()} | shards(folder)):
        with path.open("rb") as file:
            files[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return files


def shards(folder: Path) -> frozenset[Path]:
    """The files of sharded weights, as their index names them; none where the weights are one file.

    Raises ModelError for an index that is none, or names what is not there.
    """
    index = folder / INDEX
    if not index.is_file():
        return frozenset()
    try:
        names = set(parse_json(index.read_bytes())["weight_map"].values())
    except (FormatError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"base model {folder}: expected an index of weights in {INDEX}, got none") from error
    for name in sorted(map(str, names)):
        if "/" in name or "\\" in name or not (folder / name).is_file():
            raise ModelError(f"base model {folder}: expected {name}, which {INDEX} names, got no such file")
    return frozenset(folder / name for name in names)


def check_alone(folder: Path) -> None:
    """Raise ModelError where an adapter lies beside the weights."""
    if found := [name for name in ADAPTER_FILES if (folder / name).exists()]:
        raise ModelError(
            f"base model {folder}: expected weights alone, got {found[0]}: merge the adapter into them, or remove it"
        )


def _converted(folder: Path) -> Path:
    """The folder of smollm2, which appears whole or not at all, however many processes ask for it at once."""
    if folder.is_dir():
        return folder
    from llm import smollm2  # noqa: PLC0415 - torch and gguf, which only the first use of the base needs

    source = smollm2.source()
    try:
        with take(folder.with_name(f".{folder.name}.lock"), wait=True):
            if not folder.is_dir():
                _logger.warning("Converting %s once, into %s", source.name, folder)
                partial = folder.with_name(f".{folder.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
                partial.mkdir()
                smollm2.convert(source, partial)
                partial.replace(folder)
    except OSError as error:
        raise ModelError(
            f"base model {SMOLLM2}: expected a folder to convert it into, got {folder.parent}: {error.strerror}: "
            "set FOEDUS_CACHE to a writable folder with 300 MB of room"
        ) from error
    return folder
