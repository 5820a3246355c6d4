"""The configs as MMPretrain's model zoo lists its own: the text of a ``model-index.yml``.

Without any import, so that ``setup.py`` can write the file that is shipped.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ['model_index']


def model_index(configs: Sequence[str]) -> str:
    """The file for these names of configs; the paths in it are relative to the file."""
    entries = [
        f'  - Name: {name}\n    Config: configs/{name}.py\n    In Collection: fgplugins\n'
        '    Metadata: {}\n    Results: null\n'
        for name in sorted(configs)
    ]
    return 'Collections:\n  - Name: fgplugins\nModels:\n' + ''.join(entries)
