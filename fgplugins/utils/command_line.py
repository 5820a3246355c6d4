"""How every command line ends: user errors in one line, Ctrl-C quietly."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fgplugins.errors import UserError, one_line

__all__ = ['check_outputs', 'main_guard', 'need_room']


def check_outputs(args: argparse.Namespace, *options: str) -> None:
    """Refuse files to write that cannot be, before the work that fills them.

    Args:
        args: of the command line.
        options: names of those that name a file, without dashes.

    Raises:
        UserError: naming the option.
    """
    for option in options:
        path = getattr(args, option)
        if not path:
            continue
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            raise UserError(f'--{option} {path}: there is no folder {Path(path).parent}')
        if Path(path).is_dir():
            raise UserError(f'--{option} {path}: is a folder')
        target = path if Path(path).exists() else folder
        if not os.access(target, os.W_OK):
            raise UserError(f'--{option} {path}: no permission to write {target}')


def need_room(name: str) -> None:
    """End a command line with one line if a room of the package lacks what it stands on.

    Args:
        name: of the module, as ``fgplugins.zoo_mmpretrain``.
    """
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)


def main_guard(main: Callable[[], None]) -> None:
    """Run a command line: user errors end in one line and exit code 2, Ctrl-C in exit code 130.

    ``FGPLUGINS_TRACEBACK=1`` shows where an error came from.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tools import without it
    try:
        main()
    except UserError as error:
        if os.environ.get('FGPLUGINS_TRACEBACK'):
            raise
        print(f'error: {one_line(error)}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
