"""A trained composed model without what existed in training only, as a model of timm's own."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from fgplugins.methods.gap import GAP
from fgplugins.zoo_timm.composed import ComposedModel

__all__ = ['deploy']


def _plain(model: ComposedModel) -> tuple[nn.Module, str, dict[str, Any]] | None:
    """The backbone's own timm model with the trained weights, if it computes the same scores."""
    arguments = {
        'num_classes': model.num_classes,
        'in_chans': model.in_chans,
        **model.backbone_args,
    }
    plain = timm.create_model(model.backbone_name, **arguments)
    classifier = plain.pretrained_cfg.get('classifier')
    weights = dict(model.backbone.state_dict())
    for name, value in model.method.classifier.state_dict().items():
        weights[f'{classifier}.{name}'] = value
    own = plain.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights.items()}:
        return None
    plain.load_state_dict(weights)
    return plain.eval(), model.backbone_name, arguments


def deploy(model: ComposedModel) -> tuple[nn.Module, str, dict[str, Any]]:
    """The model to ship.

    A method that classifies the pooled last map deploys as its backbone's own timm model, if that
    has no more than a linear layer above the map, else as ``gap`` on the backbone. Any other method
    is part of the deployed model and stays.

    Args:
        model: trained; put in eval mode.

    Returns:
        The model, its timm name, and the arguments that ``timm.create_model`` builds it with. Its
        scores are bit-equal to those of ``model``.
    """
    model.eval()
    if type(model.method).forward is not GAP.forward:
        arguments = {
            'backbone': model.backbone_name,
            'num_classes': model.num_classes,
            'in_chans': model.in_chans,
            'levels': model.levels,
            **model.method_args,
            **model.backbone_args,
        }
        return model, model.method_name, arguments
    images = torch.randn(2, model.in_chans, *model.input_size)
    with torch.no_grad():
        scores = model(images)
        found = _plain(model)
        if found is not None and torch.equal(found[0](images), scores):
            return found
        arguments = {
            'backbone': model.backbone_name,
            'num_classes': model.num_classes,
            'in_chans': model.in_chans,
            'levels': model.levels[-1:],
            **model.backbone_args,
        }
        pooled = timm.create_model('gap', **arguments).eval()
        pooled.load_state_dict(model.state_dict())
        if not torch.equal(pooled(images), scores):
            raise RuntimeError(f'gap on {model.backbone_name} gives other scores than the model')
        return pooled, 'gap', arguments
