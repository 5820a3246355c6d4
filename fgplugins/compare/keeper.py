"""Runs a command, and ends it with all its processes when whoever started it is gone.

    python keeper.py COMMAND ...

Standard input is the lifeline: its other end is the starter's, and the system closes that however
the starter ends, by ``kill -9`` too. The keeper leads a group of processes that the command's
belong to. It is started by the path of this file and imports nothing of the package, so that it
is there in milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GROUP = os.getpgrp()


def watch() -> None:
    """Wait for the starter's end, and end the group."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.killpg(GROUP, signal.SIGKILL)


def keep(command: list[str]) -> int:
    """Run a command; its exit code, or 128 and the number of the signal that ended it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(GROUP, signal.SIGTERM)  # whatever the command left behind
    return code if code >= 0 else 128 - code


if __name__ == '__main__':
    sys.exit(keep(sys.argv[1:]))
