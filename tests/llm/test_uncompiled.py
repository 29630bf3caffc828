"""A process that loads a base does not wait for torch's compiler, which nothing here uses."""

import subprocess
import sys

WHAT_IS_LOADED = """
import sys
import llm.model, torch
print("torch._inductor.compile_fx" in sys.modules, "bitsandbytes" in sys.modules, torch.compile.__name__)
"""


def test_the_base_s_libraries_are_imported_without_torch_s_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", WHAT_IS_LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "compile"]
