"""How much memory this process has taken on the device that it computes on."""

import re
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory(device: torch.device) -> int:
    """The most bytes since the process was started: on GPUs what its allocators took, else all of the process."""
    if device.type == "cuda":
        return sum(int(torch.cuda.max_memory_reserved(each)) for each in range(torch.cuda.device_count()))
    # Not getrusage: what the process that started this one held is counted there, too.
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    return int(kilobytes) * 1024
