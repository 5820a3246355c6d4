"""The timm side: methods as timm models and as a training task."""

from fgplugins.methods.registry import load_entry_points
from fgplugins.zoo_timm import fg_models
from fgplugins.zoo_timm.composed import ComposedModel

__all__ = ['ComposedModel', 'fg_models']

load_entry_points()  # the methods of other packages, which may use all of this
