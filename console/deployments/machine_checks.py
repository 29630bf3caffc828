"""What a machine is like for a part of a deployment: measured without importing a model's libraries."""

import os
import re
import resource
import shutil
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from platform import python_version
from urllib.request import getproxies, proxy_bypass

import psutil

from console.deployments.checkup import Check, check

NEEDED = ("flwr", "torch", "transformers", "peft", "bitsandbytes", "web3")
"""What a node, or a coordinator, cannot do without."""
_NETWORKED = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")
"""File systems on which a lock of another machine may not be seen."""
_SHARED = "/dev/shm"  # noqa: S108 - looked at, and not written
_LEAST_DISK = 2 * 2**30
_LEAST_SHARED = 64 * 2**20
_LEAST_FILES = 1024
_LEAST_MEMORY = 2 * 2**30


def machine_checks(state: Path, remote: str = "") -> Iterator[Check]:
    """The machine, and the folder where something is remembered; `remote` is a host that must be reached directly."""
    yield check(
        "python", "3.11 or newer", "install a newer Python", lambda: (sys.version_info >= (3, 11), python_version())
    )
    yield check("packages", ", ".join(NEEDED), "pip install -r requirements.txt", packages)
    yield check("bitsandbytes", "its library for this machine", "pip install --force-reinstall bitsandbytes", quantiser)
    yield check("gpu", "torch that uses a GPU where there is one", "install torch's build for CUDA", graphics)
    yield check("memory", f"{_mib(_LEAST_MEMORY)} available", "end other processes, or take a larger machine", memory)
    yield check("disk", f"{_mib(_LEAST_DISK)} free", f"make room on the disk of {state}", lambda: disk(state))
    yield check("state folder", "one that you alone can write", f"chmod 700 {state}", lambda: privacy(state))
    yield check("locks", "a local file system", "move the folder to a local disk", lambda: file_system(state))
    yield check("shared memory", f"{_SHARED} of {_mib(_LEAST_SHARED)}", "docker: --shm-size 1g", shared_memory)
    yield check("open files", f"{_LEAST_FILES} or more", f"ulimit -n {4 * _LEAST_FILES}", open_files)
    yield check("proxy", "none on the way", f"add {remote or 'the host'} to no_proxy", lambda: proxy(remote))


def packages() -> tuple[bool, str]:
    """Whether every package is installed, and in which version."""
    found = {}
    for name in NEEDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return "missing" not in found.values(), ", ".join(f"{name} {what}" for name, what in found.items())


def quantiser() -> tuple[bool, str]:
    """Whether bitsandbytes has a library for this machine's processors."""
    kind = "cuda" if _cards() else "cpu"
    libraries = sorted(path.name for path in _package("bitsandbytes").glob(f"libbitsandbytes_{kind}*.so"))
    return bool(libraries), ", ".join(libraries) or f"no library for {kind}"


def graphics() -> tuple[bool, str]:
    """Whether torch uses the GPUs that are there; torch itself is not imported."""
    built = re.search(r"^cuda\b.*= '([\d.]+)'", (_package("torch") / "version.py").read_text(), re.MULTILINE)
    cards = _cards()
    return not cards or bool(built), f"{cards} of NVIDIA, torch for {'CUDA ' + built[1] if built else 'the CPU'}"


def _package(name: str) -> Path:
    spec = find_spec(name)  # looks for it, and imports nothing
    if spec is None or spec.origin is None:
        raise OSError(f"{name} is not installed")
    return Path(spec.origin).parent


def _cards() -> int:
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def memory() -> tuple[bool, str]:
    """What is available."""
    available = psutil.virtual_memory().available
    return available >= _LEAST_MEMORY, _mib(available)


def disk(folder: Path) -> tuple[bool, str]:
    """What is free for a folder."""
    free = shutil.disk_usage(_existing(folder)).free
    return free >= _LEAST_DISK, _mib(free)


def privacy(folder: Path) -> tuple[bool, str]:
    """Whether nobody else can write a folder."""
    if not folder.exists():
        return os.access(_existing(folder), os.W_OK), "not there yet"
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    return not mode & 0o022 and os.access(folder, os.W_OK), f"mode {mode:04o} of user {found.st_uid}"


def file_system(folder: Path) -> tuple[bool, str]:
    """The file system of a folder, on which locks must hold."""
    near = _existing(folder).resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    kind = next((mounts[path] for path in (near, *near.parents) if path in mounts), "unknown")
    return kind not in _NETWORKED, kind


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def shared_memory() -> tuple[bool, str]:
    """The size of /dev/shm."""
    total = shutil.disk_usage(_SHARED).total
    return total >= _LEAST_SHARED, _mib(total)


def open_files() -> tuple[bool, int]:
    """How many files a process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft >= _LEAST_FILES, soft


def proxy(remote: str) -> tuple[bool, str]:
    """Whether the loopback, and a host, are reached directly."""
    proxies = {name: url for name, url in getproxies().items() if name in ("http", "https", "all")}
    hosts = ["127.0.0.1", *([remote] if remote else [])]
    through = [host for host in hosts if proxies and not proxy_bypass(host)]
    return not through, f"{', '.join(through)} by way of a proxy" if through else "none"


def _mib(count: int) -> str:
    return f"{count // 2**20:,} MiB"
