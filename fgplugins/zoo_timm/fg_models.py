"""Registers the timm models: a generic one for each method, and presets of the papers.

    timm.create_model('warn', backbone='convnext_tiny', num_classes=200, pretrained=True)
    timm.create_model('warn_wrn28_10', num_classes=100)

Importing `fgplugins` registers them. A method registered later, by anyone, is added as it comes.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models import build_model_with_cfg, register_model, register_notrace_module
from timm.models._builder import pretrained_cfg_for_features, resolve_pretrained_cfg
from timm.models._features import FeatureGetterNet
from timm.models._pretrained import DefaultCfg, PretrainedCfg

import fgplugins.networks  # noqa: F401  (registers the networks that the presets stand on)
from fgplugins.methods import Method, get_method, on_register
from fgplugins.methods.registry import unregister
from fgplugins.networks.names import look_up
from fgplugins.zoo_timm.arguments import (
    check_backbone,
    check_numbers,
    classifier_layers,
    method_arguments,
)
from fgplugins.zoo_timm.composed import ComposedModel

__all__: list[str] = []  # timm adds the models' names

DEFAULT_BACKBONE = 'resnet50'
# settings of a backbone that say what its own weights are, and what their classes are called
OF_THE_WEIGHTS = (
    'architecture', 'tag', 'custom_load', 'license', 'origin_url', 'notes', 'description',
    'label_offset', 'label_names', 'label_descriptions',
)  # fmt: skip

default_cfgs: dict[str, DefaultCfg] = {}


def _composed_cfg(
    method: str, backbone: str, cache_dir: str | Path | None = None
) -> dict[str, Any]:
    """The backbone's image settings, without its weights, under the names of the whole model."""
    cfg = check_backbone(backbone, cache_dir)
    kept = {} if cfg is None else cfg.to_dict(remove_source=True, remove_null=True)
    for key in OF_THE_WEIGHTS:
        kept.pop(key, None)
    first = kept.get('first_conv')
    if first:
        names = [first] if isinstance(first, str) else first
        names = [f'backbone.{name}' for name in names]
        kept['first_conv'] = names[0] if isinstance(first, str) else tuple(names)
    kept['classifier'] = 'method'
    return kept


def method_of(name: str) -> str | None:
    """The method that is part of a timm model; None for a plain network, or an unknown one.

    Args:
        name: of any kind that ``timm.create_model`` takes.
    """
    try:
        architecture, _ = look_up(name)
    except ValueError:
        return None
    return getattr(timm.model_entrypoint(architecture), 'method', None)


def backbone_settings(name: str, backbone: str | None = None) -> PretrainedCfg | None:
    """The settings of the network in a timm model, which is the model itself without a method.

    Args:
        name: of the model.
        backbone: of a model with a method, in place of its own.
    """
    return look_up(name if backbone is None else backbone)[1]


_known_layers = functools.cache(classifier_layers)


def _classifier_layers(method: str, kwargs: dict[str, Any]) -> str | tuple[str, ...]:
    """Names of the model's layers whose size depends on the number of classes."""
    cls = get_method(method)
    levels = kwargs.get('levels')
    taps = kwargs.get('taps') if levels is None else len(levels)
    own = {k: v for k, v in kwargs.items() if k in method_arguments(cls)}
    try:
        layers = _known_layers(cls, taps, **own)
    except TypeError:  # hyper-parameters that cannot be told from others quickly
        layers = classifier_layers(cls, taps, **own)
    names = tuple(f'method.{name}' for name in layers)
    return names[0] if len(names) == 1 else names


def _source(cfg: PretrainedCfg | dict[str, Any] | None) -> str | None:
    """Where timm found the settings of a whole model."""
    return cfg.get('source') if isinstance(cfg, dict) else getattr(cfg, 'source', None)


def _create(
    variant: str,
    method: str,
    backbone: str,
    pretrained: bool,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: Any = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    feature_cls: str = 'getter',
    **kwargs: Any,
) -> ComposedModel | FeatureGetterNet:
    """Build a composed model; ``pretrained`` loads its own weights, or else the backbone's.

    With ``features_only`` it is the backbone alone, in timm's wrapper that gives the maps of
    ``out_indices``.
    """
    check_numbers(**kwargs)
    if _source(pretrained_cfg) in ('local-dir', 'hf-hub'):  # arguments of a model that was saved
        kwargs.setdefault('head', 'mean')  # all there was when they did not say which
    if feature_cls != 'getter' or (out_indices is not None and not features_only):
        raise ValueError(
            f'feature_cls={feature_cls!r}, out_indices={out_indices}: only features_only takes '
            "out_indices, and feature_cls='getter' alone; what a method reads is levels="
        )
    if pretrained_cfg is None:
        pretrained_cfg = _composed_cfg(method, backbone, cache_dir)
        pretrained_cfg['classifier'] = _classifier_layers(method, kwargs)
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg, pretrained_cfg_overlay)
    if pretrained and not cfg.has_weights:
        found = check_backbone(backbone, cache_dir)
        if not kwargs.get('backbone_checkpoint') and not (found and found.has_weights):
            raise ValueError(
                f'pretrained=True: no weights of {backbone!r} are published; '
                'use pretrained=False or backbone_checkpoint=<file>'
            )
        kwargs.setdefault('backbone_pretrained', True)
    if features_only:
        kwargs['num_classes'] = 0
    model = build_model_with_cfg(
        ComposedModel,
        variant,
        pretrained and cfg.has_weights,
        pretrained_cfg=cfg,
        cache_dir=cache_dir,
        method=method,
        backbone=backbone,
        **kwargs,
    )
    if features_only:
        return _backbone_features(model, out_indices)
    if model.place is not None:  # a network's classifier can have its layers deeper inside
        outer = f'method.{model.method_class.embedding_classifier}'
        names = model.pretrained_cfg['classifier']
        found: list[str] = []
        for name in [names] if isinstance(names, str) else names:
            inside = model.place.names_inside if name == outer else ['']
            found += [f'{name}.{inner}'.rstrip('.') for inner in inside]
        model.pretrained_cfg['classifier'] = found[0] if len(found) == 1 else tuple(found)
    return model


def _backbone_features(
    model: ComposedModel, out_indices: Sequence[int] | None = None
) -> FeatureGetterNet:
    """The backbone's maps, as far up as the method reads, all of them unless ``out_indices``."""
    last = model.levels[-1]
    indices = list(range(last + 1)) if out_indices is None else list(out_indices)
    if not all(-last - 1 <= i <= last for i in indices):
        raise ValueError(
            f'out_indices={indices}: {model.backbone_name} has the maps 0 to {last} up to the last '
            f'that {model.method_name} reads'
        )
    features = FeatureGetterNet(model.backbone, sorted(i % (last + 1) for i in indices), norm=True)
    features.in_chans = model.in_chans
    features.pretrained_cfg = features.default_cfg = pretrained_cfg_for_features(
        model.pretrained_cfg
    )
    return features


def _register(name: str, method: str, backbone: str, doc: str, **defaults: Any) -> None:
    """Make ``timm.create_model(name)`` build the method on the backbone."""
    if timm.is_model(name):
        owner = timm.model_entrypoint(name).__module__
        raise ValueError(f'timm already has a model named {name!r}, from {owner}')

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> ComposedModel | FeatureGetterNet:
        merged = {**defaults, 'backbone': backbone, **kwargs}
        for own, other in (('taps', 'levels'), ('levels', 'taps')):
            if other in kwargs and own not in kwargs:
                merged.pop(own, None)  # the preset's choice gives way to the user's
        if 'backbone' in kwargs:
            for key in ('probe', 'head'):
                if key not in kwargs:
                    merged.pop(key, None)
        return _create(name, method, merged.pop('backbone'), pretrained, **merged)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = doc
    entrypoint.__module__ = __name__
    entrypoint.method, entrypoint.backbone = method, backbone
    cfg = PretrainedCfg(**_composed_cfg(method, backbone))
    default_cfgs[name] = DefaultCfg(tags=deque(['']), cfgs={'': cfg})
    setattr(sys.modules[__name__], name, register_model(entrypoint))


def _register_generic(name: str, cls: type[Method]) -> None:
    if timm.is_model(name):
        unregister(name)
        owner = timm.model_entrypoint(name).__module__
        raise ValueError(
            f'method {name!r} of {cls.__module__}: timm already has a model named {name!r}, from '
            f'{owner}: choose another name'
        )
    register_notrace_module(cls)  # torch.fx takes a method as one node
    summary = (cls.__doc__ or '').strip().split('\n')[0]
    doc = f'{cls.__name__} on any timm model, ``backbone=``. {summary}'
    _register(name, name, DEFAULT_BACKBONE, doc)


def _register_preset(name: str, method: str, backbone: str, doc: str = '', **defaults: Any) -> None:
    doc = doc or f'{get_method(method).__name__} on {backbone}.'
    _register(name, method, backbone, doc, probe=False, **defaults)  # these fit


on_register(_register_generic)

# the papers' own networks have no more than average pooling and a linear layer behind their maps
PLAIN = {'head': 'mean'}

# WARN, section 4.3: AD 3, AW 4 on CIFAR; section 4.4: fine-tuning the ImageNet network, which is
# WRN-50-2 by Table 4's parameters and WRN-50-4 by its name
_register_preset('warn_wrn28_10', 'warn', 'wrn28_10', taps=3, heads=4, **PLAIN)
_register_preset('warn_wrn40_10', 'warn', 'wrn40_10', taps=3, heads=4, **PLAIN)
_register_preset('warn_wide_resnet50_2', 'warn', 'wide_resnet50_2', taps=3, heads=4)
_register_preset('warn_wide_resnet50_4', 'warn', 'wide_resnet50_4', taps=3, heads=4, **PLAIN)

# att2, Table 1: one, two and three levels of the VGG, progressive attention, ResNet-164 (whose
# dropout is the official code's); WARN, Table 1, has it on wide residual networks
_register_preset('att1_vgg', 'att2', 'att_vgg', taps=1, pool_first=True, **PLAIN)
_register_preset('att2_vgg', 'att2', 'att_vgg', taps=2, pool_first=True, **PLAIN)
_register_preset('att3_vgg', 'att2', 'att_vgg', taps=3, pool_first=True, **PLAIN)
_register_preset('pan_vgg', 'att2', 'att_vgg', taps=1, pool_first=True, progressive=True, **PLAIN)
_register_preset('att2_resnet164', 'att2', 'preact_resnet164', taps=2, dropout=0.3, **PLAIN)
_register_preset('att2_wrn28_10', 'att2', 'wrn28_10', taps=2, **PLAIN)
_register_preset('att2_wrn40_10', 'att2', 'wrn40_10', taps=2, **PLAIN)

# CLAN, section 4.1: VGG-16 in two and three scales, ResNets in two
_register_preset('clan_vgg16_bn', 'clan', 'clan_vgg16', taps=2, inner_channels=256, **PLAIN)
_register_preset('clan3_vgg16_bn', 'clan', 'clan_vgg16', taps=3, inner_channels=256, **PLAIN)
_register_preset('clan_resnet50', 'clan', 'resnet50', taps=2, inner_channels=512)
_register_preset('clan_resnet101', 'clan', 'resnet101', taps=2, inner_channels=512)

# ICASC, section 4: the inner level is the last map of the penultimate block; of VGG-19's that is
# conv4_4, the last one is the pooled conv5_4 (Fig. 3)
_register_preset('siou_resnet18', 'siou', 'resnet18')
_register_preset('siou_resnet50', 'siou', 'resnet50')
_register_preset('siou_resnet101', 'siou', 'resnet101')
_register_preset('siou_resnet110', 'siou', 'resnet110', kind='pixel', **PLAIN)
_register_preset(
    'siou_vgg19', 'siou', 'vgg19', levels=(3, 5),
    doc='SIoU on the whole VGG-19, with its own three fully connected layers.',
)  # fmt: skip

# CRA-CNN, section 4.1
_register_preset('art_resnet50', 'art', 'resnet50')
_register_preset('art_resnet101', 'art', 'resnet101')
