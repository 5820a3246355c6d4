"""Where mmengine looks for the scope ``fgplugins``, as in ``type='fgplugins.WARNHead'``."""

from fgplugins.zoo_mmpretrain.registry import (
    DATASETS,
    FUNCTIONS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    TRANSFORMS,
)

__all__ = [
    'DATASETS',
    'FUNCTIONS',
    'HOOKS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'TRANSFORMS',
]
