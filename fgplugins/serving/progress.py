"""A bar that shows how far the work is, and how fast it goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ['Bar', 'progress_bar']


class _Rate(ProgressColumn):
    """Images a second, once there are some."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text('' if speed is None else f'{speed:.1f} images/s')


class Bar:
    """A bar in progress; `advance` moves it on by a number of images."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress, self._task = progress, task

    def advance(self, images: int) -> None:
        self._progress.advance(self._task, images)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Bar]:
    """A bar on standard error, where that is a terminal; nothing elsewhere.

    Args:
        what: is being done.
        total: number of images.
    """
    console = Console(stderr=True)
    progress = Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        yield Bar(progress, progress.add_task(what, total=total))
