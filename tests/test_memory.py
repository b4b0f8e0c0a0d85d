"""Keeping freed memory, in a process of its own: settings of an allocator cannot be taken back."""

import ctypes
import subprocess
import sys

import pytest

from studio import memory

TOUCH = """
import ctypes, resource, sys
from studio.memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 64 << 20


def use():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)


use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    result = subprocess.run([sys.executable, "-c", TOUCH, how], capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="another C library than glibc")
def test_freed_memory_is_used_again_without_page_faults(monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert faults("kept") < faults("returned") / 10


@pytest.mark.parametrize("missing", [AttributeError, TypeError])
def test_another_c_library_is_left_alone(monkeypatch, missing):
    def library(name):
        raise missing

    monkeypatch.setattr(memory.ctypes, "CDLL", library)
    assert memory.keep_freed_memory() is False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says how much is held")
def test_what_one_large_call_needed_is_not_held_for_ever():
    """In a process of its own: what small calls freed is kept, what a large one freed is given back."""
    code = """
import torch
from studio.memory import Ceiling, keep_freed_memory, resident

kept = keep_freed_memory()
ceiling = Ceiling(most=100)
start = resident()
torch.ones(15 << 20)  # 60 MB
small, gave = resident() - start, ceiling.hold()
torch.ones(100 << 20)  # 400 MB
large, given = resident() - start, ceiling.hold()
print(kept, small, gave, large, given, resident() - start)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, small, gave, large, given, after = done.stdout.split()
    if kept != "True":
        pytest.skip("this C library keeps no memory")
    assert (int(small) >= 50, gave) == (True, "False")
    assert (int(large) >= 350, given) == (True, "True")
    assert int(after) < 100
