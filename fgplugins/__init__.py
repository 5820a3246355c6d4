"""Attention methods for fine-grained recognition as plug-ins for timm and MMPretrain.

With timm, imported before or after, the package registers its timm models; MMPretrain configs name
``fgplugins.zoo_mmpretrain`` in their ``custom_imports``. What is listed below is imported when it
is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fgplugins.after_timm import register, register_with_timm

if TYPE_CHECKING:
    from fgplugins.methods import Method, get_method, list_methods, register_method
    from fgplugins.methods.checking import check_method
    from fgplugins.methods.layers import without_float16

__all__ = [
    'Method',
    'check_method',
    'get_method',
    'list_methods',
    'register_method',
    'without_float16',
]
__version__ = '0.1.0'

_HOMES = {
    'check_method': 'fgplugins.methods.checking',
    'without_float16': 'fgplugins.methods.layers',
}
_ROOMS = ('data', 'errors', 'methods', 'networks', 'utils', 'zoo_timm')


def __getattr__(name: str) -> object:
    """What `__all__` lists, with all methods registered, and the rooms that need timm at most."""
    if name in __all__:
        register()
        return getattr(importlib.import_module(_HOMES.get(name, 'fgplugins.methods')), name)
    if name in _ROOMS:
        return importlib.import_module(f'fgplugins.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})


register_with_timm()
