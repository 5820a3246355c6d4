"""A trained classifier without what existed in training only, as one of MMPretrain's own."""

from __future__ import annotations

import copy

import torch
from mmengine.config import Config, ConfigDict
from mmpretrain.registry import MODELS
from torch import nn

from fgplugins.networks.classifiers import ClassifierPlace
from fgplugins.utils.modes import in_testing
from fgplugins.zoo_mmpretrain.classifier import FineGrainedClassifier
from fgplugins.zoo_mmpretrain.timm_network import TimmNetwork

__all__ = ['deploy']

# settings of a TimmNetwork that are not the network's
OF_THE_BACKBONE = (
    'type', 'model_name', 'levels', 'taps', 'head', 'num_classes', 'embedding', 'pretrained',
    'checkpoint_path', 'pretrained_cfg_overlay', 'in_channels', 'drop_rate',
)  # fmt: skip
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
    """The zoo's own classifier with the trained weights, if it has the same ones."""
    method = model.head.method
    classifier = method.get_submodule(method.embedding_classifier)
    backbone = {k: v for k, v in cfg.model.backbone.to_dict().items() if k != 'init_cfg'}
    if isinstance(model.backbone, TimmNetwork):
        if method.multi_label:
            return None
        network, place = model.backbone.timm_model, model.backbone.place
        known = {k: backbone[k] for k in backbone if k not in OF_THE_BACKBONE}
        plain_cfg = ConfigDict(
            type='TimmClassifier',
            model_name=backbone['model_name'],
            num_classes=method.num_classes,
            in_chans=model.backbone.in_channels,
            **known,
        )
        plain = MODELS.build(copy.deepcopy(plain_cfg))
        if place is None:
            name = plain.model.pretrained_cfg.get('classifier')
            place = ClassifierPlace([name], [name])
        weights = {**network.state_dict(), **place.weights(classifier)}
    else:
        indices = backbone.get('out_indices')
        if isinstance(indices, (list, tuple)) and len(indices) > 1:
            backbone['out_indices'] = (indices[-1],)  # only the last map is classified
        neck = cfg.model.get('neck') if method.embedding_channels else None
        plain_cfg = ConfigDict(
            type='ImageClassifier',
            backbone=backbone,
            neck=neck or dict(type='GlobalAveragePooling'),
            head=dict(
                type='MultiLabelLinearClsHead' if method.multi_label else 'LinearClsHead',
                num_classes=method.num_classes,
                in_channels=method.head_channels,
            ),
        )
        plain = MODELS.build(copy.deepcopy(plain_cfg))
        weights = {k: v for k, v in model.state_dict().items() if not k.startswith('head.')}
        for name, value in classifier.state_dict().items():
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

    A method that is the network deploys as that: a `TimmNetwork` as MMPretrain's
    ``TimmClassifier`` (unless images have several classes), another backbone as ``ImageClassifier``
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
    if method is not None and method.is_network:
        found = _plain(model, cfg)
        images = torch.randn(2, *input_size)
        with torch.no_grad(), in_testing(model):
            if found is not None and torch.equal(_scores(found[0], images), model(images)):
                shipped.model = found[1]
                return found[0], shipped
    return model.eval(), shipped


def _scores(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model(images, mode='tensor')
