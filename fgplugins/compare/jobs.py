"""A job is the process that makes a folder's ``result.json``; the folder says what became of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from filelock import FileLock, Timeout

from fgplugins.errors import UserError
from fgplugins.utils.whole_file import whole_file

__all__ = [
    'Job',
    'JobProcess',
    'Progress',
    'is_whole',
    'only_comparison_in',
    'only_process_in',
    'read_json',
    'run_job',
    'unfinished',
    'write_json',
]

KEEPER = Path(__file__).with_name('keeper.py')
LOCK = '.fgplugins.lock'
LOG_END = 1 << 16  # bytes of a log in which the reason of a failure is looked for
LETTERS = 300  # of a reason
POLL = 0.05  # seconds between two looks at a process
PATIENCE = 10.0  # seconds for a keeper to end all that it keeps

# `error: ...` of a tool, the last line of a traceback, and an error in mmengine's log
ERROR = re.compile(r'(?:error|[\w.]*(?:Error|Exception|Exit|Interrupt)): \S|.* - ERROR - \S')
ESCAPES = re.compile(r'\x1b(?:\[[0-?]*[ -/]*[@-~]|.)')  # of a terminal


def write_json(path: Path, content: object) -> None:
    """Write a file that is never there in part, and is on the disk when this returns."""
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=2) + '\n').encode())


@cache
def _whole_zip(path: Path, changed: int, size: int) -> bool:
    """Whether a zip file of that time and size is whole."""
    try:
        with ZipFile(path) as kept:
            return kept.testzip() is None
    except (OSError, EOFError, RuntimeError, ValueError, BadZipFile, zlib.error):
        return False


def is_whole(path: Path) -> bool:
    """Whether a file of numpy's or torch's, which are zip files, is there and can be read."""
    try:
        status = path.stat()
    except OSError:
        return False
    return _whole_zip(path, status.st_mtime_ns, status.st_size)


def read_json(path: Path) -> dict | None:
    """The content of a file; None where there is none, or no dictionary in it."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        epoch: how many are done.
        epochs: how many there will be.
        seconds: that the done ones took.
    """

    epoch: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """What makes a folder's ``result.json``.

    Attributes:
        name: what displays call it.
        folder: of its files.
        command: of the process.
        unit: what its progress counts: 'epoch' for a cell.
    """

    name: str
    folder: Path
    command: Sequence[str]
    unit: str = 'epoch'

    def on(self, devices: int) -> Job:
        """The same; a cell with one process on each of so many devices, by torchrun."""
        if devices < 2 or self.unit != 'epoch':
            return self
        python, *rest = self.command
        torchrun = ['-m', 'torch.distributed.run', '--standalone']
        command = [python, *torchrun, '--nproc-per-node', str(devices), *rest]
        return replace(self, command=command)

    @property
    def finished(self) -> bool:
        """Whether there is a result, and the scores that a cell's is of can be read."""
        content = read_json(self.folder / 'result.json')
        if content is None:
            return False
        return 'cell' not in content or is_whole(self.folder / 'scores.npz')

    @property
    def failure(self) -> str | None:
        """Why it failed, in one line; None if it did not."""
        content = read_json(self.folder / 'failed.json')
        return None if content is None or self.finished else str(content.get('reason'))

    @property
    def log(self) -> Path:
        return self.folder / 'log.txt'

    @property
    def progress(self) -> Progress | None:
        """None before the first epoch is done."""
        content = read_json(self.folder / 'progress.json') or {}
        numbers = [content.get(key) for key in ('epoch', 'epochs', 'seconds')]
        if not all(isinstance(number, (int, float)) for number in numbers):
            return None
        return Progress(*numbers)

    @property
    def kind(self) -> tuple[str, str, str]:
        """Mode, backbone and method: jobs of one kind take about as long as each other."""
        cell = read_json(self.folder / 'cell.json') or {}
        return tuple(str(cell.get(key, '')) for key in ('mode', 'backbone', 'method'))

    def clear(self) -> None:
        """Remove what an earlier try left: its failure, progress and log, and a spoilt result."""
        for name in ('failed.json', 'progress.json', 'log.txt', 'result.json'):
            (self.folder / name).unlink(missing_ok=True)

    def fail(self, reason: str) -> None:
        """Note why there is no result."""
        write_json(self.folder / 'failed.json', {'reason': reason[:LETTERS]})


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """The jobs without a result, in their order."""
    return [job for job in jobs if not job.finished]


def _lines(log: Path) -> list[str]:
    """The last lines of a log, without blank ones and what is for terminals."""
    with log.open('rb') as file:
        file.seek(max(0, log.stat().st_size - LOG_END))
        text = ESCAPES.sub('', file.read().decode('utf-8', errors='replace'))
    lines = (''.join(c for c in line if c.isprintable()).strip() for line in text.splitlines())
    return [line for line in lines if line]


def _reason(log: Path, code: int) -> str:
    """Why a process ended without a result, from its log and its exit code."""
    lines = _lines(log)
    said = next((line for line in reversed(lines) if ERROR.match(line)), None)
    number = code - 128 if code > 128 else -code
    if number in set(signal.Signals):
        why = 'out of memory?' if number == signal.SIGKILL else said or signal.Signals(number).name
        return f'killed (signal {number}): {why}'
    if said is not None:
        return said
    last = f', after: {lines[-1]}' if lines else ''
    return f'ended with exit code {code} and no result{last}'


class JobProcess:
    """A started job. It ends when this process does, and all processes that it started with it.

    Args:
        job: its log is begun anew, unless another process works in its folder.
        environment: variables to add to this process's.
    """

    def __init__(self, job: Job, environment: Mapping[str, str] | None = None) -> None:
        self.job = job
        if not _is_held(job.folder):  # else the process that holds it goes on with its files
            job.clear()
        with job.log.open('ab') as log:
            self._keeper = subprocess.Popen(
                [sys.executable, '-I', '-S', str(KEEPER), *job.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'PYTHONUNBUFFERED': '1', **(environment or {})},
                start_new_session=True,  # a group of its own, that Ctrl-C does not reach
            )

    def ended(self) -> bool:
        """Whether it has ended; if it has without a result, ``failed.json`` says why."""
        code = self._keeper.poll()
        if code is None:
            return False
        if code < 0:
            self._kill()  # the keeper was killed alone, perhaps
        self._keeper.stdin.close()
        if not self.job.finished:
            self.job.fail(_reason(self.job.log, code))
        return True

    def end(self) -> None:
        """Kill all its processes, where it has not ended."""
        self._keeper.stdin.close()  # the lifeline: the keeper finds those of other sessions too
        try:
            self._keeper.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._kill()
            self._keeper.wait()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._keeper.pid, signal.SIGKILL)


def run_job(job: Job) -> None:
    """Run a job to its end."""
    process = JobProcess(job)
    try:
        while not process.ended():
            time.sleep(POLL)
    finally:
        process.end()


@contextmanager
def _only_one_in(folder: Path, refusal: str) -> Iterator[None]:
    """Hold a folder; the system lets go of it however the process ends.

    Raises:
        UserError: with the refusal, if another one holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(refusal) from None
    try:
        yield
    finally:
        lock.release()


def only_comparison_in(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder for one comparison.

    Raises:
        UserError: on entering, if another one holds it.
    """
    return _only_one_in(
        folder,
        f'--out {folder}: a comparison is running there: wait for it, or give another folder',
    )


def only_process_in(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder of a cell for one process.

    Raises:
        UserError: on entering, if another one holds it.
    """
    return _only_one_in(
        folder,
        f'{folder.name}: another process trains this cell, perhaps on another machine: wait for '
        'it, or end it',
    )


def _is_held(folder: Path) -> bool:
    """Whether a process works in the folder of a cell."""
    if not (folder / LOCK).exists():
        return False
    try:
        with only_process_in(folder):
            return False
    except UserError:
        return True
