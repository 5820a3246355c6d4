"""Jobs on a cluster that Slurm manages: one job array, submitted and watched through submitit.

A task that is preempted or runs out of time is requeued. Whoever waits for the tasks may be
interrupted: they run on, and the next one who waits finds them by their folders.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fgplugins.compare.display import Display, job_display
from fgplugins.compare.jobs import Job, read_json, run_job, unfinished, write_json
from fgplugins.errors import UserError, one_line

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

__all__ = [
    'Cluster',
    'check_not_submitted',
    'check_slurm',
    'dry_run_text',
    'run_slurm',
    'sbatch_options',
]

POLL = 1.0  # seconds between two looks at the tasks
GRACE = 15.0  # seconds until a file of a task that has ended is seen on another machine
RECORD = 'slurm.json'  # which task a job was submitted as
# states of a task that has not ended
ALIVE = {'PENDING', 'CONFIGURING', 'RUNNING', 'SUSPENDED', 'PREEMPTED', 'REQUEUED', 'COMPLETING'}
LATELY = 600.0  # seconds after its submission in which a task may be unknown to sacct
OURS = {'array', 'error', 'open_mode', 'output', 'requeue', 'signal'}  # submitit relies on them


@dataclass(frozen=True)
class Cluster:
    """What a job asks of the cluster.

    Attributes:
        partition: of the cluster; its default if None.
        gpus: of each job.
        minutes: after which a job is stopped, and requeued up to three times.
        at_once: how many jobs may run at a time.
        options: of sbatch besides, as `sbatch_options` reads them.
    """

    partition: str | None = None
    gpus: int = 1
    minutes: int = 240
    at_once: int = 16
    options: Mapping[str, str | bool] = field(default_factory=dict)

    def parameters(self) -> dict[str, object]:
        """By the names that submitit has for them."""
        given = {'job_name': 'fgplugins', 'time': self.minutes, 'array_parallelism': self.at_once}
        given |= {'partition': self.partition, 'gpus_per_node': self.gpus or None}
        given['additional_parameters'] = {'requeue': True, **self.options}
        return {key: value for key, value in given.items() if value is not None}


def sbatch_options(items: Sequence[str]) -> dict[str, str | bool]:
    """``['cpus-per-task=8', 'exclusive']`` -> {'cpus_per_task': '8', 'exclusive': True}.

    Raises:
        UserError: for what is no option, and for options that are set already.
    """
    options: dict[str, str | bool] = {}
    for item in items:
        match = re.fullmatch(r'(?:--)?([a-z][a-z-]*)(?:=(.+))?', item)
        if match is None:
            raise UserError(f'sbatch option {item!r}: must read KEY=VALUE, as in cpus-per-task=8')
        key = match[1].replace('-', '_')
        if key in OURS:
            raise UserError(f'sbatch option {item!r}: is set for the job array; leave it out')
        options[key] = match[2] or True
    return options


def _submitit() -> ModuleType:
    try:
        import submitit
    except ImportError:
        raise UserError(
            "--jobs slurm: submitit is not installed: pip install 'fgplugins[compare]'"
        ) from None
    return submitit


def check_slurm() -> None:
    """Refuse a machine that cannot submit, before anything is written.

    Raises:
        UserError: if there is no Slurm, or no submitit.
    """
    _submitit()
    if shutil.which('srun') is None:
        raise UserError(
            '--jobs slurm: this machine has no srun; --jobs local runs on this machine, --dry-run '
            'prints the script'
        )


class Task:
    """What a task of the array does; submitit takes it there."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> None:
        if not self.job.finished:  # by another process, while the task waited
            run_job(self.job)

    def checkpoint(self) -> DelayedSubmission:
        """What the requeued task does: the same, and the job's folder says how far it was."""
        return _submitit().helpers.DelayedSubmission(self)


def dry_run_text(jobs: Sequence[Job], folder: Path, cluster: Cluster) -> str:
    """The script that would be submitted, and which task of the array is which job."""
    _submitit()
    from submitit.slurm.slurm import _make_sbatch_string

    todo = unfinished(jobs)
    if not todo:
        return f'nothing to submit: all {len(jobs)} cells are finished\n'
    folder = folder.absolute()
    command = shlex.join([sys.executable, '-u', '-m', 'submitit.core._submit', str(folder)])
    count = len(todo) if len(todo) > 1 else None  # submitit makes no array of one
    script = _make_sbatch_string(command, folder, map_count=count, **cluster.parameters())
    tasks = ''.join(f'# task {i}: {job.name}\n' for i, job in enumerate(todo))
    return f'{script}\n{tasks}'


def _submit(jobs: list[Job], folder: Path, cluster: Cluster, executor: str) -> list[object]:
    """Submit jobs; their tasks, as submitit has them.

    Raises:
        UserError: if there is no Slurm, or it does not take them.
    """
    submitit = _submitit()
    for job in jobs:
        job.clear()
    if executor != 'local':
        check_slurm()
    try:
        if executor == 'local':
            submitter = submitit.LocalExecutor(folder)
            submitter.update_parameters(timeout_min=cluster.minutes, gpus_per_node=cluster.gpus)
        else:
            submitter = submitit.SlurmExecutor(folder)
            submitter.update_parameters(**cluster.parameters())
        return submitter.submit_array([Task(job.on(cluster.gpus)) for job in jobs])
    except RuntimeError as error:
        why = one_line(error, 300)
        raise UserError(f'--jobs slurm: {why}; --jobs local runs on this machine') from None


def _submitted_before(jobs: Sequence[Job], folder: Path) -> dict[str, object]:
    """The tasks of an earlier call that have not ended, by the names of their jobs."""
    SlurmJob = _submitit().SlurmJob
    records = {job.name: read_json(job.folder / RECORD) for job in jobs}
    records = {name: record for name, record in records.items() if record is not None}
    tasks = {name: SlurmJob(folder, record['id']) for name, record in records.items()}
    if tasks:
        SlurmJob.watcher.update()
    # sacct does not know a task at first; one that has failed has said so
    failed = {job.name for job in jobs if job.failure}
    alive = {}
    for name, task in tasks.items():
        state = SlurmJob.watcher.get_state(task.job_id, 'cache')
        lately = time.time() - records[name].get('time', 0.0) < LATELY
        if state in ALIVE or (state == 'UNKNOWN' and lately and name not in failed):
            alive[name] = task
    return alive


def check_not_submitted(jobs: Sequence[Job]) -> None:
    """Refuse to run jobs here that tasks of an earlier call run, or will run.

    Where submitit is not installed nobody can ask Slurm; a cell that runs is held by its lock.

    Raises:
        UserError: naming a job, and the job array.
    """
    recorded = [job for job in jobs if (job.folder / RECORD).is_file()]
    if not recorded or find_spec('submitit') is None:
        return
    tasks = _submitted_before(recorded, recorded[0].folder)
    if tasks:
        raise UserError(
            f'--jobs local: Slurm has {len(tasks)} of the {len(jobs)} that are left, as '
            f'{next(iter(tasks))}: wait for them by --jobs slurm, or end them by scancel '
            f'{_arrays(tasks)}'
        )


def _arrays(tasks: Mapping[str, object]) -> str:
    """The numbers by which scancel knows tasks."""
    return ' '.join(sorted({task.job_id.split('_')[0] for task in tasks.values()}))


def _note_the_end(job: Job, task: object) -> None:
    """Say why a task has left neither a result nor a failure, once its files would be seen."""
    end = time.monotonic() + GRACE
    while time.monotonic() < end and not job.finished and job.failure is None:
        time.sleep(POLL)
    if not job.finished and job.failure is None:
        said = [line.strip() for line in (task.stderr() or '').splitlines() if line.strip()]
        job.fail(': '.join([f'the cluster ended it ({task.state})', *said[-1:]]))


def _wait(tasks: dict[str, object], jobs: dict[str, Job], shown: Display) -> None:
    """Wait until all tasks have ended."""
    while tasks:
        for name, task in list(tasks.items()):
            job = jobs[name]
            if name in shown.waiting and job.log.is_file():
                shown.started(job, task.job_id)
            if task.done():
                _note_the_end(job, task)
                shown.ended(job)
                del tasks[name]
        shown.look()
        time.sleep(POLL if tasks else 0)


def run_slurm(
    jobs: Sequence[Job],
    folder: Path,
    cluster: Cluster,
    display: str = 'auto',
    executor: str = 'slurm',
) -> None:
    """Submit the jobs that have no result as a job array, and wait for them.

    Those that an earlier call submitted and that have not ended are waited for.

    Args:
        jobs: all of the comparison's.
        folder: for submitit's files, which every node must see.
        cluster: what to ask for.
        display: 'auto', 'quiet' or 'verbose'.
        executor: 'slurm', or 'local' for submitit's processes on this machine.

    Raises:
        UserError: if submitit or Slurm is not there, or does not take the jobs.
    """
    todo = unfinished(jobs)
    tasks = {} if executor == 'local' else _submitted_before(todo, folder)
    new = [job for job in todo if job.name not in tasks]
    for job, task in zip(new, _submit(new, folder, cluster, executor) if new else [], strict=True):
        tasks[job.name] = task
        if executor == 'slurm':
            write_json(job.folder / RECORD, {'id': task.job_id, 'time': time.time()})
    try:
        with job_display(display, jobs, cluster.at_once) as shown:
            _wait(dict(tasks), {job.name: job for job in todo}, shown)
    except KeyboardInterrupt:
        finished = len(jobs) - len(unfinished(jobs))
        line = f'\ninterrupted; {finished} of {len(jobs)} cells are finished'
        if executor == 'local':
            for task in tasks.values():
                task.cancel()
        else:
            line += ', the others run on: wait for them with the same command, or scancel '
            line += _arrays(tasks)
        print(line)
        raise
