"""Run tests with the arithmetic of older CPUs: `python -m tests.cpus [ARGUMENT OF PYTEST ...]`.

Each library that computes chooses its kernels by the CPU's instruction set, and has a variable of its own that chooses
those of an older one. What is equal bit for bit is so within one kind; between kinds, numbers differ by rounding.
"""

import os
import subprocess
import sys

from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

KINDS = {
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
}
TESTS = ("core", "llm", "provenance", "unlearning", "agents", "benchmarks", "assets")
_KEPT = {"default": (), "avx2": ("X86_V3",)}
"""NumPy's names of what a kind has; it can switch off only what this CPU has and it has kernels for."""


def environment(kind: str) -> dict[str, str]:
    """The variables of one kind, beside this process's own."""
    off = [name for name in __cpu_dispatch__ if __cpu_features__.get(name) and name not in _KEPT[kind]]
    return os.environ | KINDS[kind] | {"NPY_DISABLE_CPU_FEATURES": " ".join(off)}


def main() -> int:
    """Run the tests of everything that computes once for each kind; the largest exit status."""
    folders = [f"tests/{name}" for name in TESTS]
    worst = 0
    for kind in KINDS:
        print(f"--- {kind} ---", flush=True)
        command = [sys.executable, "-m", "pytest", *sys.argv[1:], *folders]
        worst = max(worst, subprocess.run(command, env=environment(kind), check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
