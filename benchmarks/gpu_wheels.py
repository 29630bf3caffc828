"""What `benchmarks/gpu.sh` needs beside torch, transformers and PEFT, for a machine that reaches no package index.

    python -m benchmarks.gpu_wheels FOLDER [--python 3.12] [--cuda 130]

Wheels for Linux on x86-64 in the versions of locks/node.txt; that of bitsandbytes keeps one of its libraries, 4 MB of
60. `benchmarks/gpu.sh FOLDER` installs them there.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = (
    "annotated-types", "bitsandbytes", "cffi", "coincurve", "cryptography", "cytoolz", "eth-hash", "eth-keys",
    "eth-typing", "eth-utils", "py-ecc", "pycryptodome", "pydantic", "pydantic-core", "rfc8785", "toolz",
    "typing-inspection",
)  # fmt: skip
"""What signatures and digests take, and NF4."""
_LOCK = Path(__file__).parent.parent / "locks" / "node.txt"
_OF_A_GPU = re.compile(r"libbitsandbytes_(cuda|rocm|xpu)\w*\.so")


def trimmed(wheel: Path, out: Path, cuda: str) -> Path:
    """The wheel without the libraries of other GPUs than `cuda`, as 130; raises SystemExit when it lacks that."""
    kept = f"libbitsandbytes_cuda{cuda}.so"

    def goes(name: str) -> bool:
        return bool(_OF_A_GPU.search(name)) and not name.endswith(kept)

    path = out / wheel.name
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as less:
        names = whole.namelist()
        if not any(name.endswith(kept) for name in names):
            found = sorted(match[0] for name in names if (match := _OF_A_GPU.search(name)))
            raise SystemExit(f"--cuda: expected a version among {', '.join(found) or 'none'}, got {cuda}")
        for name in names:
            if goes(name):
                continue
            data = whole.read(name)
            if name.endswith("RECORD"):
                lines = data.decode().splitlines(keepends=True)
                data = "".join(line for line in lines if not goes(line.split(",")[0])).encode()
            less.writestr(name, data)
    return path


def fetched(out: Path, python: str) -> None:
    """Download the wheels of PACKAGES, in their locked versions, into `out`."""
    lines = _LOCK.read_text(encoding="utf-8").splitlines()
    pins = {match[1]: match[0] for line in lines if (match := re.match(r"([\w-]+)==[\w.]+", line))}
    platforms = (f"--platform=manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17, 5))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += [f"--python-version={python}", "--implementation=cp", *platforms, "--platform=manylinux2014_x86_64"]
    subprocess.run([*command, "--dest", str(out), *(pins[name] for name in PACKAGES)], check=True)


def main() -> None:
    """Fetch and trim."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--cuda", default="130")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name)
        fetched(whole, options.python)
        for wheel in sorted(whole.glob("*.whl")):
            if wheel.name.startswith("bitsandbytes"):
                trimmed(wheel, options.folder, options.cuda)
            else:
                (options.folder / wheel.name).write_bytes(wheel.read_bytes())
    size = sum(path.stat().st_size for path in options.folder.glob("*.whl"))
    print(f"{options.folder}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
