"""A trained composed model without what existed in training only, as a model of timm's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn

from fgplugins.networks.classifiers import ClassifierPlace
from fgplugins.utils.modes import in_testing
from fgplugins.zoo_timm.checkpoints import PREPROCESSING
from fgplugins.zoo_timm.composed import ComposedModel

__all__ = ['deploy', 'deployed_checkpoint']


def _like(new: nn.Module, model: nn.Module) -> nn.Module:
    """Bring a new model to the device and type of another one, in eval mode."""
    weight = next(model.parameters())
    return new.to(weight.device, weight.dtype).eval()


def _plain(model: ComposedModel) -> tuple[nn.Module, str, dict[str, Any]] | None:
    """The backbone's own timm model with the trained weights, if it computes the same scores."""
    arguments = {
        'num_classes': model.num_classes,
        'in_chans': model.in_chans,
        **model.backbone_args,
    }
    plain = _like(timm.create_model(model.backbone_name, **arguments), model)
    name = plain.pretrained_cfg.get('classifier')
    place = model.place or ClassifierPlace([name], [name])
    classifier = model.method.get_submodule(model.method.embedding_classifier)
    weights = {**model.backbone.state_dict(), **place.weights(classifier)}
    own = plain.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights.items()}:
        return None
    plain.load_state_dict(weights)
    return plain, model.backbone_name, arguments


def deploy(model: ComposedModel) -> tuple[nn.Module, str, dict[str, Any]]:
    """The model to ship.

    A method that is the network deploys as the backbone's own timm model; with ``head='mean'``, if
    that has no more than a linear layer above its last map, else as ``gap`` on the backbone with
    the same head. Any other method is part of the deployed model and stays.

    Args:
        model: trained; as it was afterwards, unless it is what is returned, in eval mode.

    Returns:
        The model, its timm name, and the arguments that ``timm.create_model`` builds it with. Its
        scores are bit-equal to those of ``model``.
    """
    model.check_method()
    if not model.method.is_network:
        model.eval()
        arguments = {
            'backbone': model.backbone_name,
            'num_classes': model.num_classes,
            'in_chans': model.in_chans,
            'levels': model.levels,
            'head': model.head,
            **model.method_args,
            **model.backbone_args,
        }
        return model, model.method_name, arguments
    weight = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, model.in_chans, *model.input_size, generator=generator)
    images = images.to(weight.device, weight.dtype)
    with torch.no_grad(), in_testing(model):
        scores = model(images)
        found = _plain(model)
        if found is not None and torch.equal(found[0](images), scores):
            return found
        arguments = {
            'backbone': model.backbone_name,
            'num_classes': model.num_classes,
            'in_chans': model.in_chans,
            'levels': model.levels[-1:],
            'head': model.head,
            **model.backbone_args,
        }
        pooled = _like(timm.create_model('gap', **arguments), model)
        pooled.load_state_dict(model.state_dict())
        if not torch.equal(pooled(images), scores):
            raise RuntimeError(f'gap on {model.backbone_name} gives other scores than the model')
        return pooled, 'gap', arguments


def deployed_checkpoint(
    model: nn.Module,
    architecture: str,
    arguments: dict[str, Any],
    classes: Sequence[str] | None = None,
    data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What to save of what `deploy` gave: all that the tools ask of a file of weights.

    Args:
        model: the model to ship.
        architecture: its timm name.
        arguments: of ``timm.create_model``.
        classes: names of the classes, where they are known.
        data: how its images are prepared, as ``timm.data.resolve_data_config`` gives it.
    """
    content = {'arch': architecture, 'model_args': arguments, 'state_dict': model.state_dict()}
    if classes:
        content['class_names'] = list(classes)
    if data:
        kept = {key: data[key] for key in PREPROCESSING if key in data}
        content['data_config'] = {**kept, 'img_size': tuple(data['input_size'][1:])}
    return content
