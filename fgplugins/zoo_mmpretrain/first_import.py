"""The first import of MMPretrain, without a line that it prints and that is no news to a user."""

from __future__ import annotations

import contextlib
import importlib
import io

__all__ = ['import_mmpretrain']

# the maintained fork says at every start that a package is missing that nothing here needs
NO_NEWS = 'Could not import OneDL'


def import_mmpretrain() -> None:
    """Import ``mmpretrain.datasets``; what else is printed meanwhile is printed afterwards."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            importlib.import_module('mmpretrain.datasets')
    finally:
        for line in said.getvalue().splitlines():
            if line != NO_NEWS:
                print(line)
