"""A check that exactly one of the two MMPretrain distributions is installed.

The maintained forks (onedl-*) and the originals share their import names: one installed over the
other overwrites its files without a word, and what is left belongs to neither.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

__all__ = ['check_installation']

FORKS = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmpretrain')
ORIGINALS = ('mmengine', 'mmcv', 'mmcv-lite', 'mmpretrain')


def check_installation(find_version: Callable[[str], str] = version) -> None:
    """Raise unless exactly one of the two families is installed.

    Args:
        find_version: gives a distribution's version or raises `PackageNotFoundError`.

    Raises:
        ImportError: naming what is installed and the command that mends it.
    """

    def installed(names: tuple[str, ...]) -> list[str]:
        found = []
        for name in names:
            try:
                found.append(f'{name} {find_version(name)}')
            except PackageNotFoundError:
                continue
        return found

    forks, originals = installed(FORKS), installed(ORIGINALS)
    if forks and originals:
        raise ImportError(
            f'two families of MMPretrain share their import names and both are installed: '
            f'{", ".join(forks)} and {", ".join(originals)}. Uninstall all of them '
            f'(pip uninstall -y {" ".join(FORKS + ORIGINALS)}), then '
            "pip install 'fgplugins[mm]' (maintained forks) or 'fgplugins[openmmlab]' (originals)"
        )
    if len(forks) < len(FORKS) and not any(name.startswith('mmpretrain ') for name in originals):
        have = f'only {", ".join(forks + originals)}' if forks or originals else 'nothing of it'
        raise ImportError(
            f'fgplugins.zoo_mmpretrain needs MMPretrain; installed: {have}. '
            "pip install 'fgplugins[mm]' (maintained forks) or 'fgplugins[openmmlab]' (originals)"
        )
