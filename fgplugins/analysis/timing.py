"""Two functions timed side by side, and the machine they run on.

Calls of the one and of the other alternate. What slows the machine down for a while slows both, so
the ratio of a round is steadier than either time.
"""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

# what the system calls the makers of processors
MAKERS = {'GenuineIntel': 'Intel', 'AuthenticAMD': 'AMD', '0x41': 'Arm', '0x61': 'Apple'}

__all__ = ['machine_record', 'median_ratio', 'paired_seconds']


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _once(
    step: Callable[[], object], device: torch.device, clock: Callable[[], float]
) -> Callable[[], float]:
    """Call, and return a function that reads the seconds: a GPU knows them only after a while."""
    if device.type == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        return lambda: start.elapsed_time(end) / 1e3
    started = clock()
    step()
    seconds = clock() - started
    return lambda: seconds


def paired_seconds(
    steps: Sequence[Callable[[], object]],
    rounds: int,
    seconds: float,
    device: torch.device,
    cpu_time: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[list[float], list[float]]:
    """Time two functions in rounds of alternating calls.

    Args:
        steps: the two functions.
        rounds: how many rounds.
        seconds: how long the calls of one function should take in a round.
        device: where they run.
        cpu_time: measure the time that this process works on the CPU, not the time on the clock.
        progress: called with a line after every round.

    Returns:
        For each function, the median seconds of a call in every round.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    warm = []
    for step in steps:
        for _ in range(3):  # what is built once is built in the first; the last is timed
            read = _once(step, device, clock)
        _synchronize(device)
        warm.append(read())
    calls = max(1, math.ceil(seconds / max(*warm, 1e-9)))
    times: tuple[list[float], list[float]] = ([], [])
    started = time.perf_counter()
    for i in range(rounds):
        reads: tuple[list[Callable[[], float]], ...] = ([], [])
        for call in range(calls):
            for which in (0, 1) if (i + call) % 2 == 0 else (1, 0):
                reads[which].append(_once(steps[which], device, clock))
        _synchronize(device)
        for which in (0, 1):
            times[which].append(statistics.median(read() for read in reads[which]))
        left = (time.perf_counter() - started) / (i + 1) * (rounds - i - 1)
        progress(f'round {i + 1} of {rounds}, {left:.0f} s left')
    return times


def median_ratio(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, minimum and maximum of the rounds' ratios first / second."""
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    low, _, high = (
        statistics.quantiles(ratios, n=4, method='inclusive') if len(ratios) > 1 else ratios * 3
    )
    return {
        'median': statistics.median(ratios),
        'low': low,
        'high': high,
        'min': ratios[0],
        'max': ratios[-1],
    }


def _processor() -> tuple[str, str]:
    """The processor's maker and name, where the system tells them."""
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        text = ''
    keys = r'^(vendor_id|model name|CPU implementer)\s*:\s*(.+)$'
    told = dict(re.findall(keys, text, re.MULTILINE))
    name = told.get('model name') or platform.processor() or platform.machine()
    maker = told.get('vendor_id') or told.get('CPU implementer') or name
    return MAKERS.get(maker, maker), name


def machine_record(device: str) -> dict[str, object]:
    """The machine and the versions that a timing depends on."""
    maker, cpu = _processor()
    record: dict[str, object] = {
        'maker': maker,
        'cpu': cpu,
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'system': platform.system(),
        'python': platform.python_version(),
        'torch': torch.__version__,
    }
    if torch.device(device).type == 'cuda':
        record['gpu'] = torch.cuda.get_device_name(device)
        record['cuda'] = torch.version.cuda
        record['cudnn'] = torch.backends.cudnn.version()
    return record
