"""Attention methods for fine-grained recognition as plug-ins for timm and MMPretrain.

Importing the package registers the timm models; MMPretrain configs name
``fgplugins.zoo_mmpretrain`` in their ``custom_imports``.
"""

import sys

if sys.argv[:1] == ['-m']:  # python -m fgplugins: Ctrl-C ends the imports quietly
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

from fgplugins.methods import Method, get_method, list_methods, register_method
from fgplugins.methods.checking import check_method  # first: it looks at what is registered
from fgplugins.methods.layers import without_float16
from fgplugins.methods.registry import load_entry_points
from fgplugins.zoo_timm import fg_models as _fg_models  # noqa: F401  (registers the timm models)

__all__ = [
    'Method',
    'check_method',
    'get_method',
    'list_methods',
    'register_method',
    'without_float16',
]
__version__ = '0.1.0'

load_entry_points()
