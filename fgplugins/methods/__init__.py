"""The maths: one file per paper, importing torch and nothing else.

`base` alone also imports fvcore's `Registry`, which is the METHODS registry.
"""

from fgplugins.methods.art import ART
from fgplugins.methods.att2 import Att2
from fgplugins.methods.base import (
    METHODS,
    Method,
    Regularizer,
    get_method,
    list_methods,
    on_register,
    register_method,
)
from fgplugins.methods.clan import CLAN
from fgplugins.methods.gap import GAP
from fgplugins.methods.siou import SIoU
from fgplugins.methods.warn import WARN

__all__ = [
    'ART',
    'CLAN',
    'GAP',
    'METHODS',
    'WARN',
    'Att2',
    'Method',
    'Regularizer',
    'SIoU',
    'get_method',
    'list_methods',
    'on_register',
    'register_method',
]
