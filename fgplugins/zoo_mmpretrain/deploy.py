"""A trained classifier without what existed in training only, as one of MMPretrain's own."""

from __future__ import annotations

import torch
from mmengine.config import Config, ConfigDict
from mmpretrain.registry import MODELS
from torch import nn

from fgplugins.utils.modes import in_testing
from fgplugins.zoo_mmpretrain.classifier import FineGrainedClassifier

__all__ = ['deploy']

TRAINING_KEYS = (
    'auto_scale_lr',
    'custom_hooks',
    'optim_wrapper',
    'param_scheduler',
    'pretrained_weights',
    'train_cfg',
    'train_dataloader',
    'val_cfg',
    'val_dataloader',
    'val_evaluator',
)


def _plain(model: FineGrainedClassifier, cfg: Config) -> tuple[nn.Module, ConfigDict] | None:
    """MMPretrain's classifier with the trained weights, if it has the same ones."""
    method, backbone = model.head.method, cfg.model.backbone.to_dict()
    if model.with_neck:
        return None
    indices = backbone.get('out_indices')
    if isinstance(indices, (list, tuple)) and len(indices) > 1:
        backbone['out_indices'] = (indices[-1],)  # only the last map is classified
    backbone.pop('init_cfg', None)
    plain_cfg = ConfigDict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='MultiLabelLinearClsHead' if method.multi_label else 'LinearClsHead',
            num_classes=method.num_classes,
            in_channels=method.in_channels[-1],
        ),
    )
    plain = MODELS.build(plain_cfg)
    weights = {k: v for k, v in model.state_dict().items() if k.startswith('backbone.')}
    for name, value in method.pooled_classifier.state_dict().items():
        weights[f'head.fc.{name}'] = value
    if {k: v.shape for k, v in plain.state_dict().items()} != {
        k: v.shape for k, v in weights.items()
    }:
        return None
    plain.load_state_dict(weights)
    return plain.eval(), plain_cfg


def deploy(
    model: FineGrainedClassifier, cfg: Config, input_size: tuple[int, int, int]
) -> tuple[nn.Module, Config]:
    """The model to ship, and the config it is tested with.

    A method that classifies the pooled last map deploys as an ``ImageClassifier`` of MMPretrain
    with a linear head. Any other method is part of the deployed model and stays.

    Args:
        model: trained, built with ``deployed=True``.
        cfg: its config.
        input_size: (channels, height, width) of its images.

    Returns:
        The model, whose scores are bit-equal to those of ``model``, and its config.
    """
    shipped = Config({k: v for k, v in cfg.to_dict().items() if k not in TRAINING_KEYS})
    method = getattr(model.head, 'method', None)
    if method is not None and method.pooled_classifier is not None:
        found = _plain(model, cfg)
        images = torch.randn(2, *input_size)
        with torch.no_grad(), in_testing(model):
            if found is not None and torch.equal(_scores(found[0], images), model(images)):
                shipped.model = found[1]
                return found[0], shipped
    return model.eval(), shipped


def _scores(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model(images, mode='tensor')
