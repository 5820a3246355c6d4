"""The maths: one file per paper, importing torch and nothing else.

`registry` alone also imports fvcore's `Registry`, which METHODS is. Every module of this folder is
imported here, so that a method is registered by lying in it.
"""

import importlib
import pkgutil

from fgplugins.methods.base import Method, NoClassMap, Regularizer
from fgplugins.methods.registry import (
    METHODS,
    get_method,
    list_methods,
    on_register,
    register_method,
)

__all__ = [
    'METHODS',
    'Method',
    'NoClassMap',
    'Regularizer',
    'get_method',
    'list_methods',
    'on_register',
    'register_method',
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_module.name}')
