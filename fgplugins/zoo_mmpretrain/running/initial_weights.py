"""Where a training's first weights come from: a file, a URL, or what is published."""

from __future__ import annotations

from pathlib import Path

import timm
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from fgplugins.errors import UserError
from fgplugins.networks.packaged_weights import INSTALL, has_package, package_of
from fgplugins.zoo_mmpretrain.running.checkpoints import (
    harmless_checkpoints,
    read_checkpoint,
    weights_of,
)
from fgplugins.zoo_mmpretrain.running.errors import user_errors
from fgplugins.zoo_mmpretrain.running.settings import short_type

__all__ = ['check_initial_weights', 'drop_pretrained', 'set_pretrained']


def set_pretrained(cfg: Config, weights: str | None) -> dict | None:
    """Start the backbone from given or published weights, or say that it starts from none.

    A file of a whole model gives all of it to a config that names what it leaves out.

    Returns:
        The weights of a file by name, to be checked against the backbone once it is built.
    """
    published, backbone = cfg.get('pretrained_weights'), cfg.model.get('backbone') or {}
    ours = short_type(backbone) == 'TimmNetwork'
    is_timms = ours or short_type(backbone) == 'TIMMBackbone'
    if is_timms and published is None and _has_published_weights(backbone.get('model_name')):
        published = f"timm's weights of {backbone.model_name}"
    packaged = ours and has_package(backbone.model_name)
    if packaged:
        published = f'the ImageNet weights of the package {package_of(backbone.model_name)}'
    if weights is None:
        if published and not any(backbone.get(key) for key in ('init_cfg', 'pretrained')):
            print(
                'note: the backbone starts from random weights; --pretrained '
                f'{"takes" if packaged else "downloads"} {published}, --pretrained FILE loads a '
                'file'
            )
        elif cfg.get('pretrained_hint'):
            print(f'note: the backbone starts from random weights; {cfg.pretrained_hint}')
        return None
    if weights == 'config' and is_timms and published:
        backbone.pretrained = True  # timm knows where they are
        if packaged:
            print(f'note: the backbone starts from {published}, which is installed')
        elif ours and package_of(backbone.model_name):
            print(f'note: {published} are downloaded; {INSTALL} brings them without a download')
        return None
    source = published if weights == 'config' else weights
    if source is None:
        where = cfg.get('pretrained_hint') or 'this config trains from random weights'
        raise UserError(f'--pretrained: no weights are named: {where}; give a file or URL')
    if '://' in source:
        if is_timms:
            backbone.pretrained = True
            backbone.pretrained_cfg_overlay = dict(url=source, hf_hub_id=None)
        else:
            backbone.init_cfg = dict(type='Pretrained', checkpoint=source)
        return None
    if not Path(source).is_file():
        raise UserError(f'--pretrained {source!r} is not a file')
    content = weights_of(read_checkpoint(source))
    names = ('backbone.timm_model.',) if ours else ('backbone.',)
    if any(key.startswith(names) for key in content):  # of a run of ours or of the zoo
        if cfg.get('pretrained_leaves_out') and any(key.startswith('head.') for key in content):
            cfg.load_from = source
            return None
        backbone.init_cfg = dict(type='Pretrained', checkpoint=source, prefix='backbone.')
        return {k.removeprefix('backbone.'): v for k, v in content.items()}
    if ours:
        backbone.checkpoint_path = source  # loaded, and compared, when the network is built
        return None
    if is_timms:
        backbone.pretrained = True
        backbone.pretrained_cfg_overlay = dict(file=source)
    else:
        backbone.init_cfg = dict(type='Pretrained', checkpoint=source)
    return content


def drop_pretrained(model: ConfigDict) -> None:
    """Leave out of a model's settings where its first weights come from.

    Args:
        model: the config's; changed in place.
    """
    for key in ('pretrained', 'pretrained_cfg_overlay', 'checkpoint_path'):
        model.pop(key, None)
    initial = model.get('init_cfg')
    if isinstance(initial, dict) and short_type(initial) == 'Pretrained':
        del model['init_cfg']
    for value in model.values():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, dict):
                drop_pretrained(part)


def check_initial_weights(
    cfg: Config, model: nn.Module, weights: dict[str, Tensor] | None, source: str | None
) -> None:
    """Compare or load the weights that a training starts from, before the runner does.

    Args:
        cfg: the config.
        model: built by it.
        weights: what `set_pretrained` gave.
        source: what the user gave by ``--pretrained``.

    Raises:
        UserError: if they are not there, or do not fit.
    """
    if weights is not None:
        _check_pretrained(weights, model.backbone, source)
    elif _has_initial_weights(cfg.model):
        with harmless_checkpoints(), user_errors('--pretrained' if source else 'model.init_cfg'):
            model.init_weights()  # reads, or downloads


def _has_published_weights(name: str) -> bool:
    """Whether timm knows where weights of a network are."""
    if ':' in name:
        return True  # a hub's, or a folder's
    found = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return bool(found and found.has_weights)


def _check_pretrained(weights: dict, backbone: nn.Module, source: str) -> None:
    """Refuse a file that lacks a weight of the backbone or has it in another shape.

    Loaders of both zoos skip such weights without a word. timm flattens some names.
    """

    def plain(key: str) -> str:
        for prefix in ('timm_model.', 'model.'):
            key = key.removeprefix(prefix)
        return key.replace('_', '.')

    given = {plain(k): v.shape for k, v in weights.items()}
    for key, value in backbone.state_dict().items():
        if given.get(plain(key)) != value.shape:
            has = 'lacks it' if plain(key) not in given else f'has {tuple(given[plain(key)])}'
            raise UserError(
                f'--pretrained {source!r} does not fit the backbone: {key} is '
                f'{tuple(value.shape)}, the file {has}'
            )


def _has_initial_weights(settings: object) -> bool:
    """Whether a model's config names a checkpoint that a part of it starts from."""
    if isinstance(settings, (list, tuple)):
        return any(_has_initial_weights(part) for part in settings)
    if not isinstance(settings, dict):
        return False
    if short_type(settings) == 'Pretrained' or settings.get('pretrained'):
        return True
    return any(_has_initial_weights(part) for part in settings.values())
