"""The one kind of error that the command lines print as a line, without a traceback."""

from __future__ import annotations

__all__ = ['UserError']


class UserError(ValueError):
    """Something the user gave is wrong; the message names it and says what would work."""
