"""What makes a computation with torch give the same bits again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """One thread and seeded generators inside, the caller's outside; deterministic kernels on CUDA."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    devices = [device] if device.type == "cuda" else []
    torch.set_num_threads(1)
    if devices:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
