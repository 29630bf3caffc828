"""One copy of a base for all processes of a machine, in a file that each of them maps into its memory.

Loading casts or quantises the weights: each process would do that for itself, and hold what it made alone. Where
FOEDUS_SHARE_BASE is set, as `foedus run` does for a simulation's nodes, the first process writes what it made into the
cache, as a base in Hugging Face format that is quantised already, and every process loads that one.

- A copy belongs to the digest of the base's files, a quantisation, and an environment in which computations are
  bit-equal. Its name ends in its own digest, which is compared each time it is loaded: a copy that was cut short or
  changed, or that has another file beside it, is made anew.
- It lies in a folder that only its user can enter. Whoever acts as that user could change this code, too.
- Arrays begin at multiples of 64 bytes, as in torch's own memory, and not of 8 as safetensors has them: the sums of a
  product of matrices may round in another way elsewhere.
- The two copies that were used last are kept.
"""

import ctypes
import gc
import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from errno import EACCES
from pathlib import Path
from typing import Any, Final

import torch

from core.canonical import Digest, parse_json, to_json
from core.errors import FormatError, ModelError
from core.storage.lock import take
from llm.bases import cache, digest_of
from llm.determinism import environment

_KEPT: Final = 2
_ALIGNMENT: Final = 64
_CONFIG, _GENERATION, _WEIGHTS = "config.json", "generation_config.json", "model.safetensors"
_FILES: Final = {_CONFIG, _GENERATION, _WEIGHTS}
_TYPES: Final = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
_logger = logging.getLogger(__name__)


def share(folder: Path, digest: Digest, settings: Mapping[str, Any], load: Callable[[Path], Any]) -> Any:
    """The network of a base's folder with this digest, by `load` from the machine's copy, which is made if it must be.

    `settings` is what else decides about the weights as `load` makes them. A base that comes quantised is loaded as it
    is; so is one without room for a copy, or a folder for it, with a warning.
    """
    key = hashlib.sha256(to_json({"base": digest, **environment(), **settings})).hexdigest()[:32]
    try:
        if b'"quantization_config"' in (folder / _CONFIG).read_bytes():
            return load(folder)
        root = _own_folder(cache() / "shared")
        copy = _found(root, key)
        if copy is None:
            with take(root / ".lock", wait=True):
                copy = _found(root, key) or _make(root, key, folder, digest, load)
            _give_back()
        os.utime(copy)
        network = load(copy)
    except (OSError, ModelError, FormatError) as error:
        _logger.warning("The base is loaded for this process alone, since no copy could be shared: %s", error)
        return load(folder)
    for parameter in network.parameters():
        # Arrays of odd sizes, which are small. Quantised ones are restored elsewhere before they are multiplied.
        if type(parameter) is torch.nn.Parameter and parameter.data_ptr() % _ALIGNMENT:
            parameter.data = parameter.data.clone()
    return network


def _own_folder(folder: Path) -> Path:
    """A folder that only its user can enter; raises PermissionError for another one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(EACCES, "expected a folder of this user's with mode 0700", str(folder))
    return folder


def _found(root: Path, key: str) -> Path | None:
    """The copy of a key, if there is one whose digest is the one in its name."""
    for copy in sorted(root.glob(f"{key}-*")):
        if _is_whole(copy):
            return copy
        _logger.warning("The shared base %s is not what was written there: it is made anew", copy)
    return None


def _is_whole(copy: Path) -> bool:
    """Whether a copy has the files that are written here, no others, and the digest in its name."""
    if copy.is_symlink() or not copy.is_dir() or {path.name for path in copy.iterdir()} - _FILES:
        return False
    return digest_of(copy) == f"0x{copy.name.rpartition('-')[2]}"


def _remove(path: Path) -> None:
    """Remove a copy, or what lies in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)  # whoever has mapped it keeps it
    else:
        path.unlink()


def _make(root: Path, key: str, folder: Path, digest: Digest, load: Callable[[Path], Any]) -> Path:
    """Write the copy of a key; whoever calls holds the lock."""
    for left in (*root.glob("*.partial"), *root.glob(f"{key}-*")):  # of a process that was killed, and what is no copy
        _remove(left)
    partial = root / f"{key}.partial"
    partial.mkdir()
    try:
        _write(load(folder), folder, partial)
        if digest_of(folder) != digest:
            raise OSError(f"the files of {folder} changed while they were read")
        copy = partial.rename(root / f"{key}-{digest_of(partial).removeprefix('0x')}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    others = {path for path in root.iterdir() if path.is_dir()} - {copy}
    for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT - 1 :]:
        _remove(old)
    return copy


def _give_back() -> None:
    """Give the system the memory back that a network took which is no more; the allocator would keep it."""
    gc.collect()
    # musl has no such function, and keeps less.
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


def _write(network: Any, folder: Path, copy: Path) -> None:
    """Write the configuration and the weights of a network, which was loaded from `folder`, into `copy`."""
    config = parse_json((folder / _CONFIG).read_bytes())
    if quantisation := getattr(network.config, "quantization_config", None):
        config["quantization_config"] = parse_json(quantisation.to_json_string(use_diff=False).encode())
    (copy / _CONFIG).write_text(json.dumps(config), encoding="utf-8")
    if (generation := folder / _GENERATION).is_file():
        shutil.copyfile(generation, copy / generation.name)
    tied = network.all_tied_weights_keys
    weights = {name: tensor for name, tensor in network.state_dict().items() if name not in tied}
    _write_weights(weights, copy / _WEIGHTS)


def _write_weights(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a file of safetensors whose arrays begin at multiples of 64 bytes, but for those of odd sizes, its last."""
    ordered = sorted(tensors.items(), key=lambda item: (item[1].nbytes % _ALIGNMENT > 0, -item[1].itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in ordered:
        place = [end, end := end + tensor.nbytes]
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _name, tensor in ordered:
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
