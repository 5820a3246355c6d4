"""Memory that is kept: what was freed is not asked of the system again."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from fgplugins.utils.memory import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == 'kept' and not keep_freed_memory():
    sys.exit('none')

def step():
    for megabytes in (48, 100, 64):
        torch.ones(megabytes << 18)

for _ in range(4):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    """Pages that the system gave to five steps that ask for 212 MB each."""
    done = subprocess.run(
        [sys.executable, '-c', FAULTS, how], capture_output=True, text=True, check=False
    )
    if done.stderr.strip() == 'none':
        pytest.skip('this C library keeps to its own settings')
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc is asked')
def test_freed_memory_is_used_again() -> None:
    kept, given_back = page_faults('kept'), page_faults('as it comes')
    if given_back < 5000:
        pytest.skip('another allocator, which keeps it anyway')
    assert kept < given_back / 20
