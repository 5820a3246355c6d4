"""What of a run's log reaches the terminal: warnings, and every line where that is asked for."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from mmengine.logging import MMLogger
from mmengine.runner import Runner

__all__ = ['few_lines', 'preparing', 'printing_handlers']


# of warnings: on what mmengine's own hooks should no longer call; on a server where there is none
MMENGINES_OWN = ('will be deprecated in future', 'make sure that the mlflow server is running')


def printing_handlers(logger: MMLogger) -> list[logging.StreamHandler]:
    """The handlers of a logger that print, rather than write its file."""
    streams = [h for h in logger.handlers if isinstance(h, logging.StreamHandler)]
    return [h for h in streams if not isinstance(h, logging.FileHandler)]


def _is_for_users(record: logging.LogRecord) -> bool:
    """Whether a line is not one of mmengine's that asks nothing of a user."""
    message = record.getMessage()
    return not any(text in message for text in MMENGINES_OWN)


def _warnings_only(logger: MMLogger) -> MMLogger:
    """Let a logger print warnings only; its file keeps every line."""
    for handler in printing_handlers(logger):
        handler.setLevel(max(handler.level, logging.WARNING))
        handler.addFilter(_is_for_users)
    return logger


def few_lines(runner: type[Runner]) -> type[Runner]:
    """A class of runners whose log is printed only where it warns, from its first line on."""

    class FewLines(runner):
        def build_logger(self, *args: object, **kwargs: object) -> MMLogger:
            return _warnings_only(super().build_logger(*args, **kwargs))

        def load_checkpoint(self, *args: object, **kwargs: object) -> object:
            printed = io.StringIO()
            try:
                with redirect_stdout(printed):
                    return super().load_checkpoint(*args, **kwargs)
            finally:
                for line in printed.getvalue().splitlines():
                    if not line.startswith('Loads checkpoint by'):  # mmengine's, past any logger
                        print(line)

    FewLines.__name__ = FewLines.__qualname__ = runner.__name__
    FewLines.__module__ = runner.__module__
    return FewLines


@contextmanager
def preparing(display: str) -> Iterator[None]:
    """Inside, before there is a runner, nothing is printed that is not asked for.

    Args:
        display: 'auto' for notes and warnings, 'quiet' for warnings, 'verbose' for all.
    """
    if display != 'verbose':
        _warnings_only(MMLogger.get_current_instance())
    if display == 'quiet':
        with redirect_stdout(io.StringIO()):
            yield
    else:
        yield
