"""Errors while a config is tried or run, turned into one line for the user."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from mmengine.runner import Runner

from fgplugins.errors import UserError, did_you_mean, one_line
from fgplugins.zoo_mmpretrain.running.settings import registered_names

__all__ = ['logged_errors', 'one_line_with_hint', 'user_errors']


def one_line_with_hint(error: BaseException) -> str:
    """An error on one line; of an unregistered type also the registered names close to it."""
    text = one_line(error)
    missing = re.match(r"['\"]?(\S+) is not in the (\S+)::(.+?) registry", text)
    if missing:
        name, _, registry = missing.groups()
        return f'type={name!r} is not a registered {registry}' + did_you_mean(
            name, sorted(registered_names(registry))
        )
    return text


@contextmanager
def user_errors(what: str) -> Iterator[None]:
    """Turn what goes wrong while a user's settings are tried into a `UserError` that names them."""
    try:
        yield
    except UserError:
        raise
    except (
        AssertionError,
        AttributeError,
        ImportError,
        IndexError,
        KeyError,
        OSError,
        RuntimeError,
        SyntaxError,
        TypeError,
        UnpicklingError,
        ValueError,
    ) as error:
        if os.environ.get('FGPLUGINS_TRACEBACK'):
            raise
        raise UserError(f'{what}: {one_line_with_hint(error)}') from error


@contextmanager
def logged_errors(runner: Runner) -> Iterator[None]:
    """Turn what goes wrong during a run into one line; its traceback lies beside the log."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if os.environ.get('FGPLUGINS_TRACEBACK'):
            raise
        file = Path(runner.log_dir) / 'traceback.txt'
        file.write_text(traceback.format_exc(), encoding='utf-8')
        text = one_line_with_hint(error)[:300]
        iteration = runner.message_hub.get_info('iter', None)
        when = '' if iteration is None else f' in iteration {iteration + 1}'
        raise UserError(f'stopped{when}: {type(error).__name__}: {text}; where: {file}') from error
