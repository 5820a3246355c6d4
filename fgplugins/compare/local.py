"""Jobs on this machine: as many at a time as there are devices."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Sequence

from fgplugins.compare.cluster import check_not_submitted
from fgplugins.compare.display import job_display
from fgplugins.compare.jobs import POLL, Job, JobProcess, unfinished
from fgplugins.errors import UserError

__all__ = ['check_devices', 'default_devices', 'device_environments', 'run_local']

MOST_CPUS = 8  # jobs at a time where there is no GPU


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def default_devices() -> list[str]:
    """Every GPU; without one as many times 'cpu' as there are cores, up to 8."""
    gpus = [f'cuda:{i}' for i in range(_gpus())]
    return gpus or ['cpu'] * min(_cores(), MOST_CPUS)


def check_devices(devices: Sequence[str]) -> list[str]:
    """The devices by their full names: 'cuda' is the first GPU.

    Raises:
        UserError: for one that is not here.
    """
    return ['+'.join(_check_device(part, device) for part in device.split('+'))
            for device in devices]  # fmt: skip


def _check_device(part: str, device: str) -> str:
    """One of the devices that a cell has at the same time."""
    match = re.fullmatch(r'cpu|cuda(?::(\d+))?', part)
    if match is None or (part == 'cpu') != device.startswith('cpu'):
        raise UserError(
            f'--devices {device!r}: must be cpu, cuda or cuda:N, or several for one cell, as '
            'cuda:0+cuda:1'
        )
    number = int(match[1] or 0)
    if part != 'cpu' and number >= _gpus():
        have = ' '.join(default_devices())
        raise UserError(f'--devices {device!r}: this machine has no {part}; it has {have}')
    return 'cpu' if part == 'cpu' else f'cuda:{number}'


def device_environments(devices: Sequence[str]) -> list[dict[str, str]]:
    """What a job is told so that it keeps to its device, and to its share of the cores."""
    processes = sum(device.count('+') + 1 for device in devices)
    threads = str(max(1, _cores() // processes))
    visible = [gpu for gpu in os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if gpu]
    environments = []
    for device in devices:
        gpus = re.findall(r'\d+', device)
        if visible:  # this process sees some of the machine's, under new numbers
            gpus = [visible[int(gpu)] for gpu in gpus]
        environments.append(
            {
                'OMP_NUM_THREADS': threads,
                'MKL_NUM_THREADS': threads,
                'CUDA_VISIBLE_DEVICES': ','.join(gpus),
            }
        )
    return environments


def run_local(jobs: Sequence[Job], devices: Sequence[str], display: str = 'auto') -> None:
    """Run the jobs that have no result, in their order; one that fails stops nothing.

    Args:
        jobs: all of the comparison's.
        devices: 'cpu' or 'cuda:N' for each job that may run at a time; 'cuda:0+cuda:1' for one
            that has two, by torchrun.
        display: 'auto', 'quiet' or 'verbose'.

    Raises:
        UserError: if tasks of Slurm run some of them.
    """
    waiting = deque(unfinished(jobs))
    check_not_submitted(waiting)
    environments = device_environments(devices)
    running: dict[int, JobProcess] = {}
    try:
        with job_display(display, jobs, len(devices)) as shown:
            try:
                while waiting or running:
                    for place, device in enumerate(devices):
                        if place in running and running[place].ended():
                            shown.ended(running.pop(place).job)
                        if place not in running and waiting:
                            job = waiting.popleft()
                            running[place] = JobProcess(
                                job.on(device.count('+') + 1), environments[place]
                            )
                            shown.started(job, device)
                    shown.look()
                    time.sleep(POLL)
            finally:
                for process in running.values():
                    process.end()
    except KeyboardInterrupt:
        finished, done = len(jobs) - len(unfinished(jobs)), ''
        if any(job.unit == 'epoch' for job in jobs):
            done = f'{finished} of {len(jobs)} cells are finished and stay; '
        print(f'\ninterrupted; {done}go on with the same command')
        raise
