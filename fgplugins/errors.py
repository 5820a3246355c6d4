"""The one kind of error that the command lines print as a line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ['UserError', 'did_you_mean']


class UserError(ValueError):
    """Something the user gave is wrong; the message names it and says what would work."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known ones that are close, if any are."""
    close = difflib.get_close_matches(name, list(known), 3)
    return f'; did you mean {" or ".join(close)}?' if close else ''
