"""Memory that a step frees stays with the process: the next step's takes hardly a page fault."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from automl_pt.training.device import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def step():
    return [torch.ones(5_000_000) for _ in range(8)]

step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
def test_what_is_freed_is_kept() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "default")
    }
    assert faults["kept"] * 10 < faults["default"]
