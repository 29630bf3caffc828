"""Reproducible computations: the same call gives the same bits in one software and hardware environment."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version

import torch

_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "numpy", "flwr")


def environment() -> dict[str, str]:
    """The environment in which training is bit-equal: versions, instruction set, device, threads."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return _versions() | {
        "python": platform.python_version(),
        "instruction-set": torch.backends.cpu.get_cpu_capability(),
        "device": device,
        "threads": "1",
    }


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    """The versions that are installed. Looked up once: that takes milliseconds, and whoever trains asks each time."""
    return {name: version(name) for name in _VERSIONS}


@contextmanager
def reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """One thread and seeded generators inside, the caller's outside; deterministic kernels on CUDA."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    # All that are visible: a base may be spread over them.
    devices = list(range(torch.cuda.device_count())) if device.type == "cuda" else []
    # Reductions are divided among threads: another number of them adds up in another order.
    torch.set_num_threads(1)
    if devices:
        # cuBLAS reads it at its first use; without it torch refuses to multiply matrices deterministically.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
