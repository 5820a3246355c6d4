"""How a command line names a model, and whose loader builds it: a config's or a timm model's."""

from __future__ import annotations

import ast
from pathlib import Path

import timm

from fgplugins.errors import UserError, did_you_mean
from fgplugins.networks.names import is_timm_name
from fgplugins.utils.loaded import LoadedModel
from fgplugins.utils.shipped import shipped_configs
from fgplugins.zoo_timm import checkpoints as timm_checkpoints
from fgplugins.zoo_timm.loading import load_timm

__all__ = ['key_values', 'load_checkpoint', 'load_model', 'parse_value']


def parse_value(text: str) -> object:
    """``'3'`` -> 3, ``'(1, 2)'`` -> (1, 2), ``'resnet18'`` -> 'resnet18'."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def key_values(option: str, items: list[str]) -> dict[str, object]:
    """The ``KEY=VALUE`` of an option.

    Raises:
        UserError: for anything else.
    """
    wrong = next((item for item in items if '=' not in item), None)
    if wrong is not None:
        raise UserError(f'{option} {wrong!r}: must read KEY=VALUE')
    return {key: parse_value(value) for key, value in (item.split('=', 1) for item in items)}


def load_model(
    name: str,
    checkpoint: str | None = None,
    model_kwargs: list[str] | None = None,
    cfg_options: list[str] | None = None,
    training_only: bool = False,
    any_method: bool = False,
) -> LoadedModel:
    """Build a model by its timm name or its config, with weights if a checkpoint is given.

    Args:
        name: of the model.
        checkpoint: file of weights.
        model_kwargs: KEY=VALUE of a timm model.
        cfg_options: KEY=VALUE of a config.
        training_only: also load what exists in training only.
        any_method: take the weights of another method, if this one has the same, as gap and siou.

    Raises:
        UserError: if the name is of neither kind, an argument is wrong, or the weights do not fit.
    """
    if is_timm_name(name):
        if cfg_options:
            raise UserError(f'--cfg-options is for configs; {name} is a timm model: --model-kwargs')
        kwargs = key_values('--model-kwargs', model_kwargs or [])
        return load_timm(name, checkpoint, kwargs, training_only, any_method)
    try:
        from fgplugins.zoo_mmpretrain.loading import load_config_model
        from fgplugins.zoo_mmpretrain.running import configs
    except ImportError as error:
        raise UserError(
            f'{name!r} is not a timm model, and configs cannot be read: {error}'
        ) from None
    try:
        configs.find_config(name)
    except UserError:
        known = [*shipped_configs(), *timm.list_models()]
        raise UserError(
            f'{name!r} is neither a config (a file, or one of configs/), '
            f'nor a method or another model of timm{did_you_mean(Path(name).stem, known)}'
        ) from None
    if any(item.startswith('img_size=') for item in model_kwargs or []):
        raise UserError(
            f'--img-size is for timm models; {name!r} is a config: its size of images is in '
            'test_dataloader.dataset.pipeline (and model.backbone.img_size, if it has that): '
            '--cfg-options'
        )
    if model_kwargs:
        raise UserError(f'--model-kwargs is for timm models; {name!r} is a config: --cfg-options')
    options = key_values('--cfg-options', cfg_options or [])
    return load_config_model(name, checkpoint, options, training_only, any_method)


def load_checkpoint(
    path: str,
    model_kwargs: list[str] | None = None,
    cfg_options: list[str] | None = None,
    pipeline: bool = False,
    advice: str | None = None,
) -> LoadedModel:
    """The model that a checkpoint is of: mmengine's hold its config, timm's its name.

    Args:
        path: of the file.
        model_kwargs: KEY=VALUE of a timm model.
        cfg_options: KEY=VALUE of a config.
        pipeline: with the test pipeline of a config, to read images by; else with its sizes alone.
        advice: how the command line names the model of a file that does not say it.

    Raises:
        UserError: if it is of neither kind, does not say what it is of, or cannot be built.
    """
    if not Path(path).is_file():
        raise UserError(f'checkpoint {path!r} is not a file')
    try:
        architecture = timm_checkpoints.read_checkpoint(path).arch
    except UserError:
        architecture = None  # as of mmengine's, which hold more than timm's reader takes
    if architecture:
        if not is_timm_name(architecture):
            raise UserError(f'checkpoint {path!r} is of {architecture!r}, which is no timm model')
        return load_model(architecture, path, model_kwargs, cfg_options)
    try:
        from fgplugins.zoo_mmpretrain.running import checkpoints, saved_settings
    except ImportError as error:
        raise UserError(f'checkpoint {path!r} cannot be read: {error}') from None
    content = checkpoints.read_checkpoint(path)
    cfg = saved_settings.saved_config(content, path)
    if cfg is None:
        raise UserError(
            f'checkpoint {path!r} does not say what it is of: '
            + (advice or f'name the config or the timm model, and pass --checkpoint {path}')
        )
    if model_kwargs:
        raise UserError(
            f'--model-kwargs is for timm models; {path!r} is of a config: --cfg-options'
        )
    if pipeline:
        cfg.test_dataloader.dataset.pipeline = saved_settings.saved_pipeline(content, path)
    from fgplugins.zoo_mmpretrain.loading import load_classifier
    from fgplugins.zoo_mmpretrain.running.overrides import override

    override(cfg, key_values('--cfg-options', cfg_options or []))
    return load_classifier(Path(path).stem, cfg, path, content)
