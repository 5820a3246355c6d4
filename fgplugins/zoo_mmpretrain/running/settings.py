"""Reading a config's settings: the types of its components, and the data sets inside wrappers."""

from __future__ import annotations

import inspect
from typing import Any

import mmpretrain.registry as zoo
from mmengine.config import Config, ConfigDict

from fgplugins.zoo_mmpretrain import registry as ours

__all__ = [
    'SPLITS',
    'all_datasets',
    'innermost_datasets',
    'name_types',
    'pipeline_size',
    'registered_names',
    'short_type',
]

SPLITS = ('train', 'val', 'test')


def name_types(settings: Any) -> Any:
    """Settings with every class or function replaced by the path that mmengine finds it by.

    A config can then be saved as text, and its types compared as strings.
    """
    if isinstance(settings, dict):
        return {key: name_types(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return type(settings)(name_types(value) for value in settings)
    named = inspect.isclass(settings) or inspect.isfunction(settings)
    if named and '<' not in settings.__qualname__:  # local ones have no path
        return f'{settings.__module__}.{settings.__qualname__}'
    return settings


def short_type(settings: dict) -> str:
    """The name of a component's type without the path or scope in front."""
    return str(settings.get('type')).rsplit('.', 1)[-1]


def registered_names(registry: str) -> set[str]:
    """Everything known under a registry's name, in MMPretrain, mmengine and here."""
    found: set[str] = set()
    for place in (*vars(zoo).values(), *vars(ours).values()):
        while getattr(place, 'name', None) == registry:
            found.update(place.module_dict)
            place = place.parent
    return found


def innermost_datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """The data sets inside whatever wrappers: repeated, concatenated, in folds.

    A wrapper is a data set with another one among its settings.
    """
    known = registered_names('dataset')
    inner: list[ConfigDict] = []
    for key, value in dataset.items():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if key != 'pipeline' and isinstance(part, dict):
                inner += innermost_datasets(part) if short_type(part) in known else []
    return inner or [dataset]


def all_datasets(cfg: Config) -> list[ConfigDict]:
    """The innermost data sets of each split, inside whatever wrappers."""
    loaders = (cfg.get(f'{split}_dataloader') for split in SPLITS)
    return [leaf for loader in loaders if loader for leaf in innermost_datasets(loader.dataset)]


def pipeline_size(pipeline: list[dict]) -> tuple[int, int]:
    """Height and width that a test pipeline ends with: its last crop or resize."""
    for step in reversed(pipeline):
        size = step.get('crop_size') or step.get('scale')
        if isinstance(size, int) and size > 0:
            return size, size
        if isinstance(size, (tuple, list)):
            # mmcv's scale is (width, height), its crop sizes are (height, width)
            height, width = size if 'crop_size' in step else reversed(size)
            return int(height), int(width)
    return 224, 224
