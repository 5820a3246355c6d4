"""Runs a command, and ends it with all its processes when whoever started it is gone.

    python keeper.py COMMAND ...

Standard input is the lifeline: its other end is the starter's, and the system closes that however
the starter ends, by ``kill -9`` too. On Linux a process below the keeper whose parent has ended
becomes the keeper's child, so the keeper finds all of them, those in sessions of their own too
(torchrun starts its workers so). Elsewhere it finds those of its group. It is started by the path
of this file and imports nothing of the package, so that it is there in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GROUP = os.getpgrp()
GRACE = 1.0  # seconds to end by SIGTERM
POLL = 0.02
PR_SET_CHILD_SUBREAPER = 36  # of Linux


def adopt_orphans() -> None:
    """Become the parent of all processes below this one whose parents end."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """The processes below this one that have not ended."""
    children: dict[int, list[int]] = {}
    ended = set()
    for file in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, parent = file.read_bytes().rpartition(b')')[2].split()[:2]
            pid = int(file.parent.name)
            children.setdefault(int(parent), []).append(pid)
            if state in b'ZX':
                ended.add(pid)
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, ())
    return [pid for pid in found[1:] if pid not in ended]


def end_descendants(grace: float) -> None:
    """End all processes below this one; by SIGKILL those that outlive SIGTERM and the grace."""
    end = time.monotonic() + grace
    how = signal.SIGTERM if grace else signal.SIGKILL
    while found := descendants():
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        time.sleep(POLL)
        if time.monotonic() > end:
            how = signal.SIGKILL


def watch() -> None:
    """Wait for the starter's end, and end all."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    end_descendants(0)
    os.killpg(GROUP, signal.SIGKILL)


def keep(command: list[str]) -> int:
    """Run a command; its exit code, or 128 and the number of the signal that ended it."""
    adopt_orphans()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(GROUP, signal.SIGTERM)  # whatever the command left behind
    end_descendants(GRACE)
    return code if code >= 0 else 128 - code


if __name__ == '__main__':
    sys.exit(keep(sys.argv[1:]))
