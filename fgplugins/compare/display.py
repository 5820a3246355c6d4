"""What a terminal shows of a comparison's jobs; each one's ``log.txt`` has everything."""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fgplugins.compare.jobs import Job, Progress, read_json
from fgplugins.utils.progress_bar import clock, on_terminal, time_left

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ['Display', 'Estimate', 'job_display']

PAUSE = 0.5  # seconds between two drawings
ROWS = 12  # of running jobs, and of failed ones, that are drawn


class Estimate:
    """How long jobs take, by those of their kind that have finished.

    Args:
        jobs: all of them.
        places: how many run at a time.
    """

    def __init__(self, jobs: Sequence[Job], places: int) -> None:
        self.kinds = {job.name: job.kind for job in jobs}
        self.places = places
        self.known: list[tuple[tuple[str, ...], float]] = []
        for job in jobs:
            took = (read_json(job.folder / 'result.json') or {}).get('seconds')
            if isinstance(took, dict):
                self.known.append((self.kinds[job.name], sum(took.values())))

    def add(self, job: Job, seconds: float) -> None:
        """Note what a finished job took."""
        self.known.append((self.kinds[job.name], seconds))

    def seconds(self, job: Job) -> float | None:
        """What a job takes, by those most like it; None before any has finished."""
        kind = self.kinds[job.name]
        for alike in range(len(kind), -1, -1):
            took = [seconds for other, seconds in self.known if other[:alike] == kind[:alike]]
            if took:
                return statistics.median(took)
        return None

    def left(self, running: Sequence[tuple[Job, float]], waiting: Sequence[Job]) -> float | None:
        """Seconds until all are done, each begun in its turn where one ends.

        Args:
            running: jobs, and for how many seconds they have run.
            waiting: the other jobs, in their order.
        """
        if not self.known:
            return None
        ends = [max(0.0, self.seconds(job) - since) for job, since in running]
        ends += [0.0] * (self.places - len(ends))
        heapq.heapify(ends)
        for job in waiting:
            heapq.heapreplace(ends, ends[0] + self.seconds(job))
        return max(ends)


@dataclass
class Running:
    """A job that runs.

    Attributes:
        job: the job.
        where: it runs.
        start: by the monotonic clock.
        progress: as it was looked at last.
    """

    job: Job
    where: str
    start: float
    progress: Progress | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


class Display:
    """Knows how far the jobs are, and shows nothing of it.

    Args:
        jobs: all of the comparison's.
        places: how many run at a time.
    """

    def __init__(self, jobs: Sequence[Job], places: int) -> None:
        self.total = len(jobs)
        self.of_cells = any(job.unit == 'epoch' for job in jobs)
        self.waiting = {job.name: job for job in jobs if not job.finished}
        self.finished = self.total - len(self.waiting)
        self.running: dict[str, Running] = {}
        self.failed: list[Job] = []
        self.estimate = Estimate(jobs, places)
        self.looked = 0.0

    def started(self, job: Job, where: str) -> None:
        """A job runs now."""
        del self.waiting[job.name]
        self.running[job.name] = Running(job, where, time.monotonic())

    def ended(self, job: Job) -> None:
        """A job has finished or failed."""
        self.waiting.pop(job.name, None)  # where nobody has seen it run
        ran = self.running.pop(job.name, None)
        if job.finished:
            self.finished += 1
            if ran is not None:
                self.estimate.add(job, ran.seconds)
            self.show_finished(job, ran)
        else:
            self.failed.append(job)
            self.show_failed(job)

    def look(self) -> None:
        """Look how far the running jobs are, now and then; to be called often."""
        if time.monotonic() - self.looked > PAUSE:
            self.looked = time.monotonic()
            for ran in self.running.values():
                ran.progress = ran.job.progress
            self.show_progress()

    def left(self) -> str:
        """The time that is left for the whole, in words; nothing where that is not known."""
        running = [(ran.job, ran.seconds) for ran in self.running.values()]
        seconds = self.estimate.left(running, list(self.waiting.values()))
        if seconds is None or not (self.running or self.waiting):
            return ''
        return f', about {clock(seconds)} left'

    def summary(self) -> str:
        """How many cells there are of each, and the time that is left."""
        if not self.of_cells:
            return ''
        failed = f', {len(self.failed)} failed' if self.failed else ''
        return f'{self.finished} of {self.total} cells finished{failed}{self.left()}'

    def show_finished(self, job: Job, ran: Running | None) -> None: ...

    def show_failed(self, job: Job) -> None: ...

    def show_progress(self) -> None: ...

    def close(self) -> None: ...


class LinesDisplay(Display):
    """A line for each job that starts, finishes or fails."""

    def started(self, job: Job, where: str) -> None:
        super().started(job, where)
        print(f'{job.name}: started on {where}', flush=True)

    def show_finished(self, job: Job, ran: Running | None) -> None:
        took = f' in {clock(ran.seconds)}' if ran else ''
        print(f'{job.name}: finished{took}{self.rest()}', flush=True)

    def show_failed(self, job: Job) -> None:
        how = f'failed: {job.failure} ({job.log})'
        print(f'{job.name}: {how}{self.rest()}', flush=True)

    def rest(self) -> str:
        """The summary, behind what is said of one job."""
        return f'; {self.summary()}' if self.of_cells else ''


class VerboseDisplay(LinesDisplay):
    """Every line of the jobs' logs besides, each with the job's name in front."""

    def __init__(self, jobs: Sequence[Job], places: int) -> None:
        super().__init__(jobs, places)
        self.read: dict[str, int] = {}

    def show_progress(self) -> None:
        for ran in self.running.values():
            self.show_log(ran.job)

    def show_finished(self, job: Job, ran: Running | None) -> None:
        self.show_log(job)
        super().show_finished(job, ran)

    def show_failed(self, job: Job) -> None:
        self.show_log(job)
        super().show_failed(job)

    def show_log(self, job: Job) -> None:
        """Print the whole lines that a log has gained."""
        if not job.log.is_file():
            return
        with job.log.open('rb') as file:
            file.seek(self.read.get(job.name, 0))
            *lines, rest = file.read().split(b'\n')
            self.read[job.name] = file.tell() - len(rest)
        for line in lines:
            print(f'{job.name}: {line.decode("utf-8", errors="replace").rstrip()}', flush=True)


class LiveDisplay(Display):
    """A table of the running jobs that is drawn again and again, with the failed ones below."""

    def __init__(self, jobs: Sequence[Job], places: int) -> None:
        super().__init__(jobs, places)
        from rich.live import Live

        # drawn when looked at: a thread of its own would hold locks when processes are started
        self.live = Live(self.picture(), auto_refresh=False)
        self.live.start()

    def picture(self) -> Group:
        """What is drawn."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for ran in list(self.running.values())[:ROWS]:
            now = ran.progress
            epoch = f'{ran.job.unit} {now.epoch}/{now.epochs}' if now else clock(ran.seconds)
            left = f'{time_left(now.seconds, now.epoch, now.epochs)} left' if now else ''
            cells = f'  {ran.job.name}', ran.where, epoch, left
            table.add_row(*(Text(cell, no_wrap=True, overflow='ellipsis') for cell in cells))
        if len(self.running) > ROWS:
            table.add_row(Text(f'  and {len(self.running) - ROWS} more'))
        failed = [Text(f'  {job.name}: failed: {job.failure}') for job in self.failed[-ROWS:]]
        running = [table] if self.running else []
        return Group(*([Text(self.summary())] if self.of_cells else []), *running, *failed)

    def draw(self) -> None:
        self.live.update(self.picture(), refresh=True)

    def started(self, job: Job, where: str) -> None:
        super().started(job, where)
        self.draw()

    def show_finished(self, job: Job, ran: Running | None) -> None:
        self.draw()

    def show_failed(self, job: Job) -> None:
        self.draw()

    def show_progress(self) -> None:
        self.draw()

    def close(self) -> None:
        self.draw()
        self.live.stop()


@contextmanager
def job_display(display: str, jobs: Sequence[Job], places: int) -> Iterator[Display]:
    """Show jobs while they run.

    Args:
        display: 'auto' for a table on a terminal and lines elsewhere; 'quiet' for nothing;
            'verbose' for lines, the logs' too.
        jobs: all of the comparison's.
        places: how many run at a time.
    """
    kinds = {'quiet': Display, 'verbose': VerboseDisplay}
    automatic = LiveDisplay if on_terminal() else LinesDisplay
    shown = kinds.get(display, automatic)(jobs, places)
    try:
        yield shown
    finally:
        shown.close()
