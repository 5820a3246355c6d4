"""Errors that are the user's to mend, and the message of any error on one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ['UserError', 'did_you_mean', 'first_line', 'one_line']


class UserError(ValueError):
    """Something the user gave is wrong; the message names it and says what would work."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known ones that are close, if any are."""
    close = difflib.get_close_matches(name, list(known), 3)
    return f'; did you mean {" or ".join(close)}?' if close else ''


def one_line(error: BaseException, letters: int | None = None) -> str:
    """An error's message on one line; its type where it has none.

    Of an error in a data-loading worker it is what the worker said.

    Args:
        error: of any kind.
        letters: the most to keep.
    """
    text = str(error)
    if 'Original Traceback' in text:
        text = text.rstrip().split('UserError: ')[-1]
    return (' '.join(text.split()) or type(error).__name__)[:letters]


def first_line(error: BaseException) -> str:
    """The first sentence of an error's message; its type where it has none."""
    return (str(error).strip() or type(error).__name__).split('\n')[0].split('. ')[0]
