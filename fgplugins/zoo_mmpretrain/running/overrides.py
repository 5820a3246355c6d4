"""``--cfg-options``: which are refused, and how they change a config."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner

from fgplugins.errors import UserError, did_you_mean
from fgplugins.zoo_mmpretrain.running.errors import user_errors

__all__ = ['override']

# sections of a config that the runner, MMPretrain or the tools read, besides the arguments of
# mmengine's runner
READ_SECTIONS = (
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'data_preprocessor',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'pretrained_hint',
    'pretrained_leaves_out',
    'pretrained_weights',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)


def override(cfg: Config, overrides: dict[str, object]) -> None:
    """Change settings of a config in place, as ``--cfg-options`` does, under its scope.

    Raises:
        UserError: for what the config has no place for, or that would change nothing.
    """
    if DefaultScope.get_current_instance() is None:
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    with user_errors('--cfg-options'):
        _check_overrides(cfg, overrides)
        cfg.merge_from_dict(overrides)


def _check_overrides(cfg: Config, overrides: dict[str, object]) -> None:
    """Refuse to override what the config lacks, or what nothing reads any more.

    Variables of a config file, such as ``test_pipeline``, are copied to where they are used when
    the file is read; to change them later changes nothing.

    Raises:
        UserError: naming the places that are read, or sections that are close.
    """
    read = {*inspect.signature(Runner).parameters, *READ_SECTIONS}
    for key in overrides:
        section, _, rest = key.partition('.')
        if section in read:
            continue
        if section not in cfg:
            hint = did_you_mean(section, {*cfg, *read})
            raise UserError(f'--cfg-options {key}: the config has no {section!r}{hint}')
        copies = [
            place
            for place in _places(cfg, cfg[section])
            if place.split('.')[0] in read and not place.startswith(f'{section}.')
        ]
        use = ', '.join(f'{place}.{rest}' if rest else place for place in copies[:3])
        raise UserError(
            f'--cfg-options {key}: has no effect, since {section!r} is a variable of the config '
            f'file that nothing reads afterwards' + (f': override {use} instead' if use else '')
        )


def _places(settings: Any, value: Any, path: str = '') -> Iterator[str]:
    """Where in the settings a value stands, as ``test_dataloader.dataset.pipeline``."""
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(settings, (dict, Config)):
        items = iter(settings.items())
    elif isinstance(settings, (list, tuple)):
        items = iter(enumerate(settings))
    for key, inner in items:
        place = f'{path}.{key}' if path else str(key)
        if type(inner) is type(value) and inner == value:
            yield place
        else:
            yield from _places(inner, value, place)
