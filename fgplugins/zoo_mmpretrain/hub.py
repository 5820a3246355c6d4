"""Our configs among MMPretrain's: ``mmpretrain.list_models('clan_*')``, ``get_model(name)``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mmpretrain.apis.model import ModelHub

from fgplugins.model_index import model_index
from fgplugins.utils.shipped import shipped_folder

__all__ = ['register_configs']


def register_configs() -> None:
    """Register the shipped configs for MMPretrain's ``get_model`` and inferencers."""
    folder = shipped_folder('configs')
    names = [f.stem for f in folder.glob('*.py') if not ModelHub.has(f.stem)]
    if not names:
        return
    with tempfile.TemporaryDirectory() as draft:
        index = Path(draft) / 'model-index.yml'
        index.write_text(model_index(names), encoding='utf-8')
        ModelHub.register_model_index(index, config_prefix=folder.parent)


register_configs()
