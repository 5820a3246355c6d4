"""The settings that a checkpoint was trained by, read as data: no code of theirs runs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.model.weight_init import BaseInit
from mmengine.registry import root as root_registries
from mmpretrain import registry as zoo

from fgplugins.errors import UserError, one_line
from fgplugins.zoo_mmpretrain import registry as ours
from fgplugins.zoo_mmpretrain.running.settings import innermost_datasets

__all__ = [
    'counts_iterations',
    'read_literals',
    'saved_config',
    'saved_head',
    'saved_meta',
    'saved_network',
    'saved_pipeline',
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
# where the steps of a pipeline come from
STEPS = ('fgplugins.', 'mmcv.transforms.', 'mmpretrain.datasets.transforms.')
ELSEWHERE = ('backend_args', 'file_client_args')  # settings that read files from other places
# settings that would import modules or fetch code
CODE_KEYS = ('custom_imports', 'trust_remote_code')
SIZES = ('crop_size', 'scale')  # of the steps of a pipeline


# --------------------------------------------------------------------------------- settings as text


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


# ---------------------------------------------------------------------------------- single settings


def saved_meta(checkpoint: dict) -> dict:
    """What mmengine notes of a checkpoint besides the weights; empty without it."""
    meta = checkpoint.get('meta')
    return meta if isinstance(meta, dict) else {}


def _settings(checkpoint: dict) -> dict[str, Any] | None:
    """The settings that a checkpoint was trained by, as far as they are data; None without any."""
    text = saved_meta(checkpoint).get('cfg')
    if not isinstance(text, str) or not text.strip():
        return None
    return read_literals(text)


def _setting(checkpoint: dict, *path: str) -> Any:
    """One of the settings that a checkpoint was trained by; None where it does not say."""
    try:
        found: Any = _settings(checkpoint)
    except (TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def saved_head(checkpoint: dict) -> str | None:
    """The type of the head that a checkpoint was trained with, where it says so."""
    head = _setting(checkpoint, 'model', 'head', 'type')
    return head.rsplit('.', 1)[-1] if isinstance(head, str) else None


def saved_network(checkpoint: dict) -> str | None:
    """The timm network that a checkpoint was trained on, where it says so."""
    name = _setting(checkpoint, 'model', 'backbone', 'model_name')
    return name if isinstance(name, str) else None


def counts_iterations(checkpoint: dict) -> bool | None:
    """Whether a checkpoint's training counted iterations, not epochs; None if it does not say."""
    loop = _setting(checkpoint, 'train_cfg')
    return bool(loop.get('max_iters')) if isinstance(loop, dict) else None


# --------------------------------------------------------------------------------- the whole config


def saved_config(checkpoint: dict, path: str) -> Config | None:
    """The config in a checkpoint, if any: its model, and the size of its images.

    Nothing of it is executed. It may only name parts of classifiers that are registered already.
    Of its test pipeline the sizes are kept, for reports.

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


def saved_pipeline(checkpoint: dict, path: str) -> list[dict[str, Any]]:
    """The test pipeline of the config in a checkpoint, to read images by.

    Its steps may only be registered transforms, on files of this machine.

    Raises:
        UserError: if there is none, or it names something else.
    """
    try:
        settings = _settings(checkpoint) or {}
        loader = settings.get('test_dataloader') or settings.get('val_dataloader') or {}
        dataset = innermost_datasets(Config(loader)['dataset'])[0]
        steps = dataset.to_dict()['pipeline']
        _check_steps(steps)
    except (AttributeError, KeyError, TypeError, ValueError, SyntaxError, RecursionError) as error:
        reason = 'it has none' if isinstance(error, KeyError) else one_line(error)
        raise UserError(
            f'checkpoint {path!r}: the test pipeline of its config is not read, since {reason}: '
            'name the config itself by --model'
        ) from None
    return steps


def _check_steps(settings: object) -> None:
    """Refuse steps of a pipeline that are no registered transforms of `STEPS`.

    Raises:
        ValueError: naming the setting.
    """
    if isinstance(settings, dict):
        for key, value in settings.items():
            if key in CODE_KEYS or (key in ELSEWHERE and value):
                raise ValueError(f'it asks for {key}={value!r}')
            if key == '_scope_' and value not in SCOPES:
                raise ValueError(f'it names the scope {value!r}')
            if key == 'type' and not (isinstance(value, str) and _is_a_step(value)):
                raise ValueError(f'it names {value!r}, which is no registered transform')
            _check_steps(value)
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            _check_steps(value)


def _is_a_step(name: str) -> bool:
    """Whether a type is a registered transform: by its name, or by its own path."""
    scope, _, plain = name.rpartition('.')
    found = dict(_registered('transform')).get(plain)
    module = str(getattr(found, '__module__', ''))
    return module.startswith(STEPS) and scope in ('', *SCOPES, module)


def _sizes(settings: object) -> list[dict[str, Any]]:
    """The steps of pipelines that have a size, reduced to it."""
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
    return _registered('batch augment', 'model', 'weight initializer')


def _registered(*kinds: str) -> Iterator[tuple[str, object]]:
    """What is registered under the names of registries, in all rooms of mmengine's."""
    for place in (root_registries, zoo, ours):
        for registry in vars(place).values():
            if getattr(registry, 'name', None) in kinds:
                yield from registry.module_dict.items()
