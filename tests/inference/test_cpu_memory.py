"""Reuse of freed memory."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from seamless_pr.inference.cpu_memory import keep_freed_memory

PROGRAM = """
import resource
import numpy as np
from seamless_pr.inference.cpu_memory import keep_freed_memory
assert keep_freed_memory() or {keep} == 0
def touch():
    np.ones(64 << 20, np.uint8)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    program = PROGRAM.format(keep=int(keep))
    if not keep:
        program = program.replace("assert keep_freed_memory() or 0 == 0\n", "")
    command = [sys.executable, "-c", program]
    # In huge pages there would be too few faults to tell.
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    found = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    return int(found.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_large_blocks_are_reused():
    assert page_faults(keep=True) < 1000 < page_faults(keep=False)


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
