"""The timm side: methods as timm models and as a training task."""

from fgplugins.zoo_timm import fg_models
from fgplugins.zoo_timm.composed import ComposedModel

__all__ = ['ComposedModel', 'fg_models']
