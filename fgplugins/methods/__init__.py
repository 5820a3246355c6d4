"""The maths: one file per paper, importing torch and nothing else.

`base` alone also imports fvcore's `Registry`, which is the METHODS registry.
"""

from fgplugins.methods.base import (
    METHODS,
    Method,
    get_method,
    list_methods,
    on_register,
    register_method,
)
from fgplugins.methods.gap import GAP
from fgplugins.methods.warn import WARN

__all__ = [
    'GAP',
    'METHODS',
    'WARN',
    'Method',
    'get_method',
    'list_methods',
    'on_register',
    'register_method',
]
