"""The most memory that a process has taken."""

import numpy as np
import torch

from llm.memory import peak_memory

CPU = torch.device("cpu")


def test_the_peak_stays_when_what_made_it_is_gone() -> None:
    before = peak_memory(CPU)
    held = np.ones(before // 8 + 2**23)  # more than the process has ever had, and 64 MiB
    peak = peak_memory(CPU)
    del held
    assert peak >= before + 2**25
    assert peak_memory(CPU) >= peak - 2**22, "the kernel counts in batches of pages"
