"""Checkpoints of timm's script and of ``deploy``: weights, name, arguments, classes, as data."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.data.readers.class_map import load_class_map
from timm.models import clean_state_dict, get_model_input_config, load_state_dict
from torch import Tensor, nn

from fgplugins.errors import UserError, one_line
from fgplugins.networks.names import look_up
from fgplugins.networks.weights import first_difference
from fgplugins.zoo_timm.composed import ComposedModel
from fgplugins.zoo_timm.fg_models import backbone_settings, method_of

__all__ = [
    'SavedModel',
    'build_arguments',
    'check_same_method',
    'check_weights',
    'data_config',
    'published_classes',
    'published_size',
    'read_checkpoint',
]

# the training script's names of what timm.create_model takes
ARGUMENTS = {
    'num_classes': 'num_classes',
    'in_chans': 'in_chans',
    'global_pool': 'gp',
    'bn_eps': 'bn_eps',
}
PREPROCESSING = ('mean', 'std', 'interpolation', 'crop_pct', 'crop_mode')
# arguments that name where weights come from: a checkpoint has its own
SOURCES = (
    'backbone_checkpoint',
    'backbone_pretrained',
    'cache_dir',
    'checkpoint_path',
    'pretrained',
    'pretrained_cfg',
    'pretrained_cfg_overlay',
)


@dataclass
class SavedModel:
    """A checkpoint.

    Attributes:
        path: of the file.
        weights: those that were tested: averaged ones where there are any.
        arch: name of the timm model they are of; None if the file does not say.
        arguments: what ``timm.create_model`` built it with.
        data: how its images were prepared: `PREPROCESSING`, and 'img_size'.
        classes: names of the classes, in the order of the scores.
        training_only: weights that exist in training only.
        version: of the composed model's weights; None if the file does not say.
    """

    path: str
    weights: dict[str, Tensor]
    arch: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    classes: list[str] | None = None
    training_only: dict[str, Tensor] | None = None
    version: int | None = None


def _class_names(content: dict[str, Any], args: dict[str, Any]) -> list[str] | None:
    names = content.get('class_names') or content.get('classes')
    if isinstance(names, dict) and all(isinstance(label, int) for label in names.values()):
        names = sorted(names, key=names.get)  # class_to_idx
    if names:
        _demand('class_names', names, isinstance(names, list | tuple))
        return [str(name) for name in names]
    path = str(args.get('class_map') or '')
    folder = str(args.get('data_dir') or '')
    if path.endswith('.txt') and any(Path(f).is_file() for f in (path, Path(folder) / path)):
        index = load_class_map(path, folder)
        return sorted(index, key=index.get)
    return None


def read_checkpoint(path: str) -> SavedModel:
    """Read a file of weights as data: no code in it runs.

    Raises:
        UserError: if it is not there, or cannot be read as weights.
    """
    if not Path(path).is_file():
        raise UserError(f'checkpoint {path!r} is not a file')
    try:
        if path.endswith('.safetensors'):
            return SavedModel(path, load_state_dict(path))
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # of a pickle, a zip archive, safetensors
        raise UserError(f'checkpoint {path!r} cannot be read: {one_line(error, 200)}') from None
    if not isinstance(content, dict):
        raise UserError(f'checkpoint {path!r} holds a {type(content).__name__}, no weights by name')
    try:
        return _saved_model(path, content)
    except UserError as error:
        raise UserError(f'checkpoint {path!r} is damaged: {error}') from None


def _demand(place: str, value: object, right: bool) -> None:
    if not right:
        raise UserError(f'{place} is {value!r:.60}')


def _saved_model(path: str, content: dict[str, Any]) -> SavedModel:
    """The entries of a checkpoint, each checked for its type.

    Raises:
        UserError: naming one of a wrong type.
    """
    averaged = content.get('state_dict_ema') is not None
    keys = ('state_dict_ema', 'model_ema', 'state_dict', 'model')  # timm's own order
    weights = next((content[key] for key in keys if isinstance(content.get(key), dict)), content)
    _demand('its weights', weights, all(isinstance(key, str) for key in weights))
    args = content.get('args') or {}
    args = vars(args) if isinstance(args, argparse.Namespace) else args
    arch = content.get('arch')
    _demand('arch', arch, arch is None or isinstance(arch, str))
    own, prepared = content.get('model_args') or {}, content.get('data_config') or {}
    given = (args.get('model_kwargs') if isinstance(args, dict) else None) or {}
    for place, value in (
        ('args', args),
        ('args.model_kwargs', given),
        ('model_args', own),
        ('data_config', prepared),
    ):
        _demand(place, value, isinstance(value, dict))
    arguments = {name: args[key] for name, key in ARGUMENTS.items() if args.get(key) is not None}
    size = args.get('input_size')  # (channels, height, width)
    _demand('args.input_size', size, size is None or (_is_size(size) and len(size) == 3))
    if size is not None:
        arguments.setdefault('in_chans', size[0])
    data = {key: args[key] for key in PREPROCESSING if args.get(key)}
    size = size[1:] if size is not None else args.get('img_size')
    data = {**data, **({'img_size': size} if size else {}), **prepared}
    for key in ('mean', 'std'):
        values = data.get(key)
        right = isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values)
        _demand(key, values, values is None or right)
    _demand('img_size', data.get('img_size'), _is_size(data.get('img_size', 1)))
    arguments = {**arguments, **given, **own}
    return SavedModel(
        path,
        clean_state_dict(weights),
        arch,
        {key: value for key, value in arguments.items() if key not in SOURCES},
        data,
        _class_names(content, args),
        content.get('task_state_ema' if averaged else 'task_state'),
        _version(weights),
    )


def _version(weights: dict[str, Tensor]) -> int | None:
    """The version that a state dict says it is of, below the wrappers that training adds."""
    metadata = getattr(weights, '_metadata', {})
    found = [metadata.get(name, {}).get('version') for name in ('', 'module', '_orig_mod')]
    return max((version for version in found if version is not None), default=None)


def published_classes(model: nn.Module) -> list[str] | None:
    """Names of the classes that a folder's or a hub's config gives a model; None without any."""
    names = getattr(model, 'pretrained_cfg', {}).get('label_names')
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return [str(name) for name in names] if names else None


def published_size(name: str) -> tuple[int, int] | None:
    """The (height, width) of images that a folder or a hub says a model was tested with.

    None for a name of timm's own, whose settings the model has.
    """
    published = name.startswith(('local-dir:', 'hf-hub:', 'hf_hub:'))
    return tuple(look_up(name)[1].input_size[1:]) if published else None


def _is_size(value: object) -> bool:
    sides = value if isinstance(value, list | tuple) else [value]
    return all(type(side) is int and side > 0 for side in sides)


def check_same_method(saved: SavedModel, name: str) -> None:
    """Refuse a checkpoint that says that it is of another method than a timm model.

    Raises:
        UserError: naming both.
    """
    own = method_of(saved.arch) if saved.arch else None
    if saved.arch and own != method_of(name):
        what = repr(saved.arch) if own else f'{saved.arch!r}, a network without a method'
        raise UserError(f'checkpoint {saved.path!r} is of {what}, not of {name!r}')


def build_arguments(
    name: str, saved: SavedModel, given: dict[str, Any]
) -> tuple[dict[str, Any], tuple[int, int] | None]:
    """What to build a model with, and the size of its images if it takes any.

    Args:
        name: of a timm model.
        saved: its checkpoint, whose arguments count where none are given.
        given: arguments of the user's; ``img_size`` is of the network, or else of the images.

    Returns:
        The arguments, and (height, width), or None for what the network's settings say.
    """
    known = saved.arguments
    if saved.arch != name:  # another preset of the same method, or a file of weights alone
        known = {k: v for k, v in known.items() if k in ('num_classes', 'in_chans')}
    if given.keys() & {'taps', 'levels'}:  # one of them is enough
        known = {k: v for k, v in known.items() if k not in ('taps', 'levels')}
    arguments = {**known, **given}
    if saved.version == 1 and method_of(name):  # of 0.1, which had no other
        arguments.setdefault('head', 'mean')
    size = given.get('img_size') or saved.data.get('img_size') or known.get('img_size')
    if size is not None:
        size = (size, size) if isinstance(size, int) else tuple(size)
        cfg = backbone_settings(name, arguments.get('backbone'))
        if 'img_size' in known or (cfg is not None and cfg.fixed_input_size):
            arguments['img_size'] = size
        else:
            arguments.pop('img_size', None)
    return arguments, size


def check_weights(model: nn.Module, saved: SavedModel) -> None:
    """Refuse a checkpoint whose weights are not a model's, every one of them.

    Raises:
        UserError: in one line, naming the first that differs.
    """
    reason = first_difference(saved.weights, model)
    if reason:
        hint = '; they fit --model-kwargs head=mean' if _fit_the_mean(saved.weights, model) else ''
        raise UserError(f'checkpoint {saved.path!r} is of another model: {reason}{hint}')


def _fit_the_mean(weights: dict[str, Tensor], model: nn.Module) -> bool:
    """Whether weights are a composed model's that stands on the last map alone."""
    if not isinstance(model, ComposedModel) or model.head == 'mean':
        return False
    other = timm.create_model(
        model.method_name,
        backbone=model.backbone_name,
        num_classes=model.num_classes,
        in_chans=model.in_chans,
        levels=model.levels,
        head='mean',
        device='meta',
        **model.method_args,
        **{k: v for k, v in model.backbone_args.items() if k != 'global_pool'},
    )
    return first_difference(weights, other) is None


def data_config(
    model: nn.Module, data: dict[str, Any] | None = None, img_size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """How images are prepared for a model: what ``timm.data.create_transform`` takes.

    Args:
        model: of timm, composed or plain; its own size and channels count, where it has them.
        data: how they were prepared in training, if that is known.
        img_size: (height, width), for a network that takes any.

    Raises:
        UserError: if the network is built for another size.
    """
    given = dict(data or {})
    given.pop('img_size', None)
    own = get_model_input_config(model)
    channels, *size = own['input_size']
    if img_size is not None and tuple(size) != tuple(img_size):
        if own['fixed_input_size']:
            raise UserError(f'img_size={img_size}: the network is built for images of {size}')
        size = img_size
    cfg = dict(getattr(model, 'pretrained_cfg', {}))
    for key in ('mean', 'std'):
        values = tuple(given.pop(key, None) or cfg.get(key) or ())
        if values and len(values) != channels:  # as timm's own loader does it
            values = (sum(values) / len(values),) * channels
        cfg[key] = values
    return resolve_data_config({**given, 'input_size': (channels, *size)}, pretrained_cfg=cfg)
