"""A bar on a terminal that shows how much of a piece of work is done, and when it will be."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ['clock', 'on_terminal', 'progress_bar', 'time_left']


def on_terminal() -> bool:
    """Whether what is printed goes to a terminal that can redraw a line."""
    return sys.stdout.isatty() and os.environ.get('TERM') != 'dumb'


def clock(seconds: float) -> str:
    """``90`` -> '0:01:30'."""
    whole = round(seconds)
    return f'{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}'


def time_left(seconds: float, done: int, total: int) -> str:
    """The time that is left at the pace so far, as ``0:01:30``; none before the first step."""
    if not done:
        return '-:--:--'
    return clock(seconds / done * (total - done))


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while some work is done; none where the output is no terminal.

    Args:
        title: in front of the bar, which goes away in the end.

    Yields:
        A function to call now and then with the amounts of work done and of all.
    """
    if not on_terminal():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = '{task.description}', BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # drawn by the caller's calls: a thread of its own would hold locks when workers are forked
    with Progress(*columns, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, refresh=True)

        yield show
