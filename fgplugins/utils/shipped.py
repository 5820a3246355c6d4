"""Where the configs and tools are that ship with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ['shipped_configs', 'shipped_folder']


def shipped_folder(name: str) -> Path:
    """``'configs'`` or ``'tools'``: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / '.mim' / name
    return installed if installed.is_dir() else package.parent / name


def shipped_configs() -> list[str]:
    """The names of the shipped configs, in alphabetical order."""
    return sorted(file.stem for file in shipped_folder('configs').glob('*.py'))
