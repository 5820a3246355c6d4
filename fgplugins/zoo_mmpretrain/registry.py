"""Registries of the scope ``fgplugins``, children of MMPretrain's.

What is registered here is found by its plain name and with the scope in front:
``type='WARNHead'`` and ``type='fgplugins.WARNHead'``.
"""

from __future__ import annotations

from typing import TypeVar

from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import Registry
from mmpretrain import registry as mmpretrain

__all__ = [
    'DATASETS',
    'FUNCTIONS',
    'HOOKS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'TRANSFORMS',
    'VISBACKENDS',
    'register',
]

T = TypeVar('T')

ROOM = ['fgplugins.zoo_mmpretrain']


def _child(parent: Registry) -> Registry:
    return Registry(parent.name, parent=parent, scope='fgplugins', locations=ROOM)


MODELS = _child(mmpretrain.MODELS)
DATASETS = _child(mmpretrain.DATASETS)
TRANSFORMS = _child(mmpretrain.TRANSFORMS)
HOOKS = _child(mmpretrain.HOOKS)
METRICS = _child(mmpretrain.METRICS)
OPTIM_WRAPPERS = _child(mmpretrain.OPTIM_WRAPPERS)
VISBACKENDS = _child(mmpretrain.VISBACKENDS)
FUNCTIONS = _child(MMENGINE_FUNCTIONS)


def register(registry: Registry, item: T) -> T:
    """Register a class or function in one of the registries above and in its parent.

    Raises:
        ValueError: if the name is taken by something else; both owners are named.
    """
    name = item.__name__
    for place in (registry.parent, registry):
        owner = place.module_dict.get(name)
        if owner is not None:
            raise ValueError(
                f'{name} of {item.__module__} is already registered in {place.scope}::'
                f'{place.name} by {owner.__module__}: choose another class name'
            )
        place.register_module(name=name, module=item)
    return item
