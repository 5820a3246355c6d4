"""Checkpoints as data: weights, class names and the config, read without running any code."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model.weight_init import BaseInit
from mmengine.registry import root as root_registries
from mmpretrain import registry as zoo
from torch import Tensor, nn

from fgplugins.errors import UserError, one_line
from fgplugins.zoo_mmpretrain import registry as ours
from fgplugins.zoo_mmpretrain.classifier import TRAINING_ONLY, FineGrainedClassifier
from fgplugins.zoo_mmpretrain.heads import MethodHead

__all__ = [
    'check_checkpoint',
    'class_names',
    'counts_iterations',
    'harmless_checkpoints',
    'read_checkpoint',
    'read_literals',
    'saved_config',
    'weights_of',
]

SCOPES = ('mmengine', 'mmpretrain', 'mmcls', 'fgplugins')
# where the parts of a classifier come from; other registered classes may read files, or run them
ROOMS = (
    'fgplugins.',
    'mmcv.cnn.',
    'mmengine.model.',
    'mmengine.utils.dl_utils.parrots_wrapper',
    'mmpretrain.models.backbones.',
    'mmpretrain.models.classifiers.',
    'mmpretrain.models.heads.',
    'mmpretrain.models.losses.',
    'mmpretrain.models.necks.',
    'mmpretrain.models.utils.data_preprocessor',
    'mmpretrain.models.utils.batch_augments',
    'mmpretrain.models.utils.norm',
    'torch.nn.',
)
# settings that would import modules or fetch code
CODE_KEYS = ('custom_imports', 'trust_remote_code')
SIZES = ('crop_size', 'scale')  # of the steps of a pipeline


# ------------------------------------------------------------------------------------ reading files


def _history_method(owner: object, name: str) -> object:
    """The one use that mmengine's message hub has for ``getattr``, and no other."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise UserError(f'the checkpoint asks for {owner!r}.{name}')
    return getattr(owner, name)


def _harmless() -> list[object]:
    """What mmengine's checkpoints hold besides tensors."""
    import numpy as np

    core = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    numbers = [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'u4', 'u8', 'b1')]
    return [
        (_history_method, 'builtins.getattr'),
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        core._reconstruct,
        core.scalar,
        *numbers,
    ]


@contextmanager
def harmless_checkpoints() -> Iterator[None]:
    """Let ``torch.load`` read mmengine's checkpoints, and no code, whoever calls it in here.

    mmengine reads a file that holds more than data a second time with code allowed; torch's own
    switch forbids that.
    """
    switch = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    before = os.environ.get(switch)
    os.environ[switch] = '1'
    try:
        with torch.serialization.safe_globals(_harmless()):
            yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def read_checkpoint(path: str) -> dict:
    """A checkpoint file, without running any code it may carry.

    Raises:
        UserError: if the file is absent, damaged, or holds more than data.
    """
    if not Path(path).is_file():
        raise UserError(f'checkpoint {path!r} is not a file')
    try:
        with harmless_checkpoints():
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'checkpoint {path!r} cannot be read: {one_line(error)[:200]}') from None
    if not isinstance(checkpoint, dict):
        raise UserError(f'checkpoint {path!r} holds a {type(checkpoint).__name__}, not weights')
    _check_shape(checkpoint, path)
    return checkpoint


def _check_shape(checkpoint: dict, path: str) -> None:
    """Refuse entries that are not what mmengine puts there.

    Raises:
        UserError: naming the entry.
    """
    meta = checkpoint.get('meta')
    data = meta.get('dataset_meta') if isinstance(meta, dict) else None
    names = data.get('classes') if isinstance(data, dict) else None
    weights = checkpoint.get('state_dict', checkpoint)
    demands = [
        ('meta', meta, meta is None or isinstance(meta, dict)),
        ('meta.dataset_meta', data, data is None or isinstance(data, dict)),
        ('meta.dataset_meta.classes', names, names is None or isinstance(names, (list, tuple))),
        (
            'state_dict',
            weights,
            isinstance(weights, dict) and all(isinstance(key, str) for key in weights),
        ),
    ]
    for key in ('message_hub', 'optimizer'):
        demands.append((key, checkpoint.get(key), isinstance(checkpoint.get(key, {}), dict)))
    for key in ('epoch', 'iter'):
        number = (meta if isinstance(meta, dict) else {}).get(key, 0)
        demands.append((f'meta.{key}', number, type(number) is int and number >= 0))
    for place, value, right in demands:
        if not right:
            raise UserError(f'checkpoint {path!r} is damaged: {place} is {value!r:.60}')


def weights_of(checkpoint: dict) -> dict[str, Tensor]:
    """The weights by name, without the prefix that a wrapper for several processes adds."""
    weights = checkpoint.get('state_dict', checkpoint)
    return {key.removeprefix('module.'): value for key, value in weights.items()}


def _meta(checkpoint: dict) -> dict:
    meta = checkpoint.get('meta')
    return meta if isinstance(meta, dict) else {}


# ------------------------------------------------------------------------------------ saved configs


def read_literals(text: str) -> dict[str, Any]:
    """The settings of a config as mmengine writes it, read as data.

    Args:
        text: lines ``name = value``; a value is made of numbers, strings, lists, tuples and
            dictionaries, ``dict(key=value)`` included.

    Raises:
        ValueError: for anything else, such as an import or a call.
    """
    settings = {}
    for statement in ast.parse(text).body:
        if not (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            raise ValueError(f'line {statement.lineno} is not "name = value"')
        settings[statement.targets[0].id] = _literal(statement.value)
    return settings


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == 'dict') or len(node.args) > 1:
            raise ValueError(f'line {node.lineno} calls {ast.unparse(node.func)[:60]}')
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f'line {node.lineno} unpacks a dictionary')
        first = _literal(node.args[0]) if node.args else {}
        return dict(first, **{str(k.arg): _literal(k.value) for k in node.keywords})
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError(f'line {node.lineno} unpacks a dictionary')
        return {
            _literal(key): _literal(value)
            for key, value in zip(node.keys, node.values, strict=True)
        }
    if isinstance(node, ast.List):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item) for item in node.elts)
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return float(node.id)
    if isinstance(node, ast.Attribute):
        return _path(node)  # a type given as a class
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(
            f'line {node.lineno} holds more than data: {ast.unparse(node)[:60]}'
        ) from None


def _path(node: ast.expr) -> str:
    """``a.b.C`` as a string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f'{_path(node.value)}.{node.attr}'
    raise ValueError(f'line {node.lineno} holds more than data: {ast.unparse(node)[:60]}')


def _settings(checkpoint: dict) -> dict[str, Any] | None:
    """The settings that a checkpoint was trained by, as far as they are data; None without any."""
    text = _meta(checkpoint).get('cfg')
    if not isinstance(text, str) or not text.strip():
        return None
    return read_literals(text)


def saved_config(checkpoint: dict, path: str) -> Config | None:
    """The config that a checkpoint carries: its model, and the size of its images; None without.

    Nothing of it is executed, and only parts of classifiers that are registered already can be
    named in it. Of its test pipeline the sizes are kept, for reports.

    Raises:
        UserError: if it holds more than data, or names something else.
    """
    try:
        settings = _settings(checkpoint)
        if settings is None:
            return None
        kept = {key: settings.get(key) or {} for key in ('model', 'data_preprocessor')}
        _check_harmless(kept)
        if not isinstance(kept['model'], dict):
            raise ValueError(f'it has model={kept["model"]!r}')
        kept['test_dataloader'] = {'dataset': {'type': 'FineGrainedImages', 'pipeline': []}}
        kept['test_dataloader']['dataset']['pipeline'] = _sizes(settings.get('test_dataloader'))
    except (TypeError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(
            f'checkpoint {path!r}: its config is not read, since {one_line(error)}: name the '
            f'config itself, and pass --checkpoint {path!r}'
        ) from None
    scope = settings.get('default_scope')
    kept['default_scope'] = scope if scope in SCOPES else 'mmpretrain'
    return Config({key: value for key, value in kept.items() if value})


def _sizes(settings: object) -> list[dict[str, Any]]:
    """The steps of the pipelines inside settings that have a size, without all else."""
    if isinstance(settings, (list, tuple)):
        return [step for part in settings for step in _sizes(part)]
    if not isinstance(settings, dict):
        return []
    own = {
        key: settings[key]
        for key in SIZES
        if isinstance(settings.get(key), int)
        or (
            isinstance(settings.get(key), (list, tuple))
            and all(isinstance(side, int) for side in settings[key])
        )
    }
    inner = [step for value in settings.values() for step in _sizes(value)]
    return [own, *inner] if own else inner


def _check_harmless(settings: object) -> None:
    """Refuse settings that would run more than the constructors of a classifier's parts.

    mmengine takes a type that it does not know for the path of any object, and imports it.

    Raises:
        ValueError: naming the setting.
    """
    if isinstance(settings, dict):
        for key, value in settings.items():
            if not isinstance(key, str):
                raise ValueError(f'it has the key {key!r}')
            if key in CODE_KEYS:
                raise ValueError(f'it asks for {key}={value!r}')
            if key in ('type', '_scope_') and not isinstance(value, str):
                raise ValueError(f'it names {key}={value!r}')
            if key == '_scope_' and value not in SCOPES:
                raise ValueError(f'it names the scope {value!r}')
            # a layer's type is looked up too, as norm_layer of TIMMBackbone
            a_path = key.endswith('layer') and isinstance(value, str) and '.' in value
            named = (key == 'type' and value != 'Pretrained') or a_path
            if named and not _is_a_part(value):
                raise ValueError(f'it names {value!r}, which is no registered part of a classifier')
            _check_harmless(value)
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            _check_harmless(value)


def _is_a_part(name: str) -> bool:
    """Whether a type is a registered part of a classifier: by its name, or by its own path."""
    scope, _, plain = name.rpartition('.')
    known = dict(_models())
    if scope in ('', *SCOPES):
        found = known.get(plain)
    else:
        found = getattr(sys.modules.get(scope), plain, None)  # looked up, never imported
        found = found if any(item is found for item in known.values()) else None
    return str(getattr(found, '__module__', '')).startswith(ROOMS) or (
        isinstance(found, type) and issubclass(found, BaseInit)
    )


def _models() -> Iterator[tuple[str, object]]:
    """What is registered as a part of a model, as a way to initialise one, or to mix images."""
    for place in (root_registries, zoo, ours):
        for registry in vars(place).values():
            if getattr(registry, 'name', None) in ('batch augment', 'model', 'weight initializer'):
                yield from registry.module_dict.items()


def _setting(checkpoint: dict, *path: str) -> Any:
    """One of the settings that a checkpoint was trained by; None where it does not say."""
    try:
        found: Any = _settings(checkpoint)
    except (TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _saved_head(checkpoint: dict) -> str | None:
    """The type of the head that a checkpoint was trained with, where it says so."""
    head = _setting(checkpoint, 'model', 'head', 'type')
    return head.rsplit('.', 1)[-1] if isinstance(head, str) else None


def counts_iterations(checkpoint: dict) -> bool | None:
    """Whether a checkpoint's training counted iterations, not epochs; None if it does not say."""
    loop = _setting(checkpoint, 'train_cfg')
    return bool(loop.get('max_iters')) if isinstance(loop, dict) else None


# --------------------------------------------------------------------------------------- what fits


def class_names(checkpoint: dict) -> tuple[str, ...] | None:
    """The names of the classes that a checkpoint was trained on, in order; None if not kept."""
    names = (_meta(checkpoint).get('dataset_meta') or {}).get('classes')
    return tuple(str(name) for name in names) if names else None


def check_checkpoint(
    checkpoint: dict,
    path: str,
    model: nn.Module,
    complete: bool = True,
    any_method: bool = False,
) -> None:
    """Refuse a checkpoint that was not made for this model.

    Args:
        checkpoint: what `read_checkpoint` gave.
        path: of the file.
        model: what it should fit.
        complete: it must be a checkpoint of this very model; else one that part of the model
            starts from.
        any_method: it may be of another method that has the same weights.

    Raises:
        UserError: naming the number of classes, the method, or the first weight that does not fit.
    """
    weights, own = weights_of(checkpoint), model.state_dict()
    head, saved = type(getattr(model, 'head', None)), _saved_head(checkpoint)
    if issubclass(head, MethodHead) and saved not in (None, head.__name__) and not any_method:
        raise UserError(
            f'checkpoint {path!r} is of another method: it was trained with {saved}, the model has '
            f'{head.__name__}: use its own config'
        )
    wrong = [k for k in own if k in weights and weights[k].shape != own[k].shape]
    if wrong:
        theirs = len(class_names(checkpoint) or ())
        ours = getattr(getattr(model, 'head', None), 'num_classes', None)
        if theirs and ours and theirs != ours:
            raise UserError(
                f'checkpoint {path!r} is of {theirs} classes, the model has {ours}: '
                'use the data or config it was trained with'
            )
        raise UserError(
            f'checkpoint {path!r} does not fit: {wrong[0]} is {tuple(weights[wrong[0]].shape)} '
            f'in it and {tuple(own[wrong[0]].shape)} in the model'
        )
    missing = [k for k in own if k not in weights]
    if missing and (complete or len(missing) == len(own)):
        raise UserError(f'checkpoint {path!r} is of another model: it lacks {_first_of(missing)}')
    besides = [k for k in weights if k not in own and not k.startswith(TRAINING_ONLY)]
    if besides and complete and isinstance(model, FineGrainedClassifier):
        raise UserError(
            f'checkpoint {path!r} is of another model: besides what this one has, it holds '
            f'{_first_of(besides)}'
        )


def _first_of(names: list[str]) -> str:
    return names[0] + (f' and {len(names) - 1} more' if len(names) > 1 else '')
