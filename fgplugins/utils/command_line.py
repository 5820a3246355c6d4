"""Shared by all command lines: checks before the work, and a quiet end after errors and Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fgplugins.errors import UserError, one_line

__all__ = [
    'check_output_folder',
    'check_outputs',
    'command_parser',
    'main_guard',
    'require_module',
]

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help begins with a tool's docstring, as it is written.

    Its examples are called as the tool was: ``fgplugins train`` or ``python tools/train.py``.
    """
    if description and sys.argv[0].startswith('fgplugins '):
        description = re.sub(r'python tools/(\w+)\.py', r'fgplugins \1', description)
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def check_outputs(args: argparse.Namespace, *options: str) -> None:
    """Refuse files that cannot be written, before any work is done.

    Args:
        args: the parsed command line.
        *options: the options that name a file to write, without dashes.

    Raises:
        UserError: if one cannot be written; the message names the option.
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
        if not Path(path).exists():
            _try_to_write(f'--{option} {path}', folder)
        elif not os.access(path, os.W_OK):
            raise UserError(f'--{option} {path}: no permission to write it')


def check_output_folder(option: str, path: str | Path) -> Path:
    """Refuse a folder that cannot be made or written, before any work is done.

    Args:
        option: that names it, as it is written.
        path: of the folder; the ones above it need not be there.

    Returns:
        The folder.

    Raises:
        UserError: naming the option.
    """
    there = Path(path).absolute()
    try:
        while not there.exists():
            there = there.parent
    except OSError as error:  # as of a name that is too long
        raise UserError(f'{option} {path}: {error.strerror}') from None
    if not there.is_dir():
        is_file = 'is a file' if there == Path(path).absolute() else f'{there} is a file'
        raise UserError(f'{option} {path}: {is_file}, not a folder')
    _try_to_write(f'{option} {path}', there)
    return Path(path)


def _try_to_write(what: str, folder: Path) -> None:
    """Make a file in a folder for a moment: permissions do not tell of every file system."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'{what}: cannot write in {folder}: {error.strerror}') from None


def require_module(name: str) -> None:
    """Import a part of the package that takes long; end with one line if that is not possible.

    A command line does so when its arguments are read and found right. Ctrl-C ends the import, and
    the program, without a word.

    Args:
        name: the module, as ``fgplugins.zoo_mmpretrain``.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    finally:
        signal.signal(signal.SIGINT, handler)


def main_guard(main: Callable[[], None]) -> None:
    """Run a command line: user errors end in one line and exit code 2, Ctrl-C in exit code 130.

    ``FGPLUGINS_TRACEBACK=1`` shows where an error came from.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # not set during a tool's imports
    try:
        main()
    except UserError as error:
        if os.environ.get('FGPLUGINS_TRACEBACK'):
            raise
        print(f'error: {one_line(error)}', file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in NO_SPACE or os.environ.get('FGPLUGINS_TRACEBACK'):
            raise
        print(f'error: {error.strerror}: {error.filename or "free some"}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
