"""The timm side: methods as timm models and as a training task. The only room that knows timm."""

from fgplugins.zoo_timm import fg_models
from fgplugins.zoo_timm.composed import ComposedModel

__all__ = ['ComposedModel', 'fg_models']
