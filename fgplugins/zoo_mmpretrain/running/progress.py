"""What a terminal shows of a run: one bar, or a line an epoch; the log file has everything."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from fgplugins.utils.progress_bar import on_terminal, time_left
from fgplugins.zoo_mmpretrain.running.choosing import main_score, shown_score, validates_on_test
from fgplugins.zoo_mmpretrain.running.launching import is_main_process
from fgplugins.zoo_mmpretrain.running.terminal import printing_handlers

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ['showing']

WINDOW = 50  # steps that the bar's loss is the mean of
PAUSE = 0.1  # seconds between two drawings of the bar


@contextmanager
def showing(runner: Runner, display: str) -> Iterator[None]:
    """Inside, a run's progress is shown, by the first of its processes.

    Args:
        runner: about to train or test.
        display: 'auto' for a bar on a terminal and a line an epoch elsewhere; 'quiet' and 'verbose'
            for neither.
    """
    if display != 'auto' or not is_main_process():
        yield
    elif not on_terminal():
        runner.register_hook(LinesHook())
        yield
    else:
        from rich.progress import BarColumn, Progress, TextColumn

        texts = [TextColumn(f'{{task.fields[{k}]}}') for k in ('steps', 'loss', 'score', 'left')]
        # drawn by the hook: a thread of its own would hold locks when workers are forked
        with Progress('{task.description}', BarColumn(None), *texts, auto_refresh=False,
                      expand=True) as bar:  # fmt: skip
            runner.register_hook(BarHook(bar))
            handlers = printing_handlers(runner.logger)
            streams = [handler.setStream(sys.stdout) for handler in handlers]  # above the bar
            try:
                yield
            finally:
                for handler, stream in zip(handlers, streams, strict=True):
                    handler.setStream(stream or sys.__stdout__)


class _ProgressHook(Hook):
    """Knows how far a run is."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.start, self.first = 0.0, 0

    def before_train(self, runner: Runner) -> None:
        self.start, self.first = time.monotonic(), runner.iter

    def by_iterations(self, runner: Runner) -> bool:
        return isinstance(runner.train_loop, IterBasedTrainLoop)

    def time_left(self, runner: Runner, done: int) -> str:
        seconds = time.monotonic() - self.start
        return time_left(seconds, done - self.first, runner.max_iters - self.first)

    def loss(self, runner: Runner, steps: int) -> str:
        losses = runner.message_hub.log_scalars.get('train/loss')
        return f'loss {losses.mean(steps):.4f}' if losses else ''

    def score(self, runner: Runner, metrics: dict[str, object]) -> str:
        """The score that validation is judged by; the first number where that is not known."""
        numbers = {k: v for k, v in metrics.items() if isinstance(v, (int, float))}
        name = main_score(runner.cfg)
        name = name if name in numbers else next(iter(numbers), None)
        if name is None:
            return ''
        return f'{"test" if validates_on_test(runner.cfg) else "val"} ' + shown_score(
            name, numbers[name]
        )


class LinesHook(_ProgressHook):
    """Prints a line after every epoch; where iterations are counted, after every validation."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def after_train_epoch(self, runner: Runner) -> None:
        if not self.by_iterations(runner):
            steps = len(runner.train_dataloader)
            self.begin(runner, f'epoch {runner.epoch + 1}/{runner.max_epochs}', steps, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: object) -> None:
        if not self.by_iterations(runner):
            return
        done, every = runner.iter + 1, runner.train_loop.val_interval
        if done % every == 0 or done == runner.max_iters:
            self.begin(runner, f'iteration {done}/{runner.max_iters}', every, done)

    def begin(self, runner: Runner, what: str, steps: int, done: int) -> None:
        self.end()
        left = f'{self.time_left(runner, done)} left' if done < runner.max_iters else ''
        self.parts = [f'{what}: {self.loss(runner, steps)}', left]

    def after_val_epoch(self, runner: Runner, metrics: dict[str, object] | None = None) -> None:
        if self.parts:
            self.parts.insert(1, self.score(runner, metrics or {}))
        self.end()

    def before_train_epoch(self, runner: Runner) -> None:
        self.end()  # of an epoch without validation

    def after_train(self, runner: Runner) -> None:
        self.end()

    def end(self) -> None:
        if self.parts:
            print(', '.join(part for part in self.parts if part), flush=True)
        self.parts = []


class BarHook(_ProgressHook):
    """Draws one bar for the whole of a training, or of a test."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self.bar, self.drawn = bar, 0.0
        self.task = bar.add_task('starting', total=None, steps='', loss='', score='', left='')

    def draw(self, now: bool = False, **settings: object) -> None:
        """Update the bar; it is drawn some times a second, or at once."""
        due = now or time.monotonic() - self.drawn > PAUSE
        self.drawn = time.monotonic() if due else self.drawn
        self.bar.update(self.task, refresh=due, **settings)

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.draw(now=True, total=runner.max_iters, completed=runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: object) -> None:
        done = runner.iter + 1
        epoch = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
        self.draw(
            now=done == runner.max_iters,
            description='training' if self.by_iterations(runner) else epoch,
            completed=done,
            steps=f'{done}/{runner.max_iters}',
            loss=self.loss(runner, WINDOW),
            left=f'{self.time_left(runner, done)} left',
        )

    def after_val_iter(self, runner: Runner, batch_idx: int, **_: object) -> None:
        self.draw(description=f'validation {batch_idx + 1}/{len(runner.val_dataloader)}')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, object] | None = None) -> None:
        self.draw(now=True, score=self.score(runner, metrics or {}))

    def after_train(self, runner: Runner) -> None:
        self.draw(now=True, description='trained', left='')

    def before_test(self, runner: Runner) -> None:
        self.start = time.monotonic()
        self.draw(now=True, description='testing', total=len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, **_: object) -> None:
        done, total = batch_idx + 1, len(runner.test_dataloader)
        left = time_left(time.monotonic() - self.start, done, total)
        self.draw(now=done == total, completed=done, steps=f'{done}/{total}', left=f'{left} left')
