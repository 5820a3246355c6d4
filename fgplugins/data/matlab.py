"""MATLAB's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgplugins.errors import UserError

__all__ = ['load_mat']


def load_mat(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a MATLAB file by name, without dimensions of one.

    Raises:
        UserError: if it cannot be read.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(str(path), squeeze_me=True)
    except (MatReadError, OSError, ValueError, NotImplementedError, TypeError) as error:
        # NotImplementedError is of files of version 7.3, which SciPy does not read
        raise UserError(f'{path} is not a MATLAB file that can be read: {error}') from None
