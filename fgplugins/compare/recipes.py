"""The recipe that all methods of a comparison are trained by: ``configs/_base_/recipes``."""

from __future__ import annotations

import argparse
from typing import Any

from mmengine.config import Config

from fgplugins.compare.cells import split_variant
from fgplugins.errors import UserError
from fgplugins.networks.names import look_up_network
from fgplugins.utils.shipped import shipped_folder
from fgplugins.zoo_mmpretrain.running.options import set_options
from fgplugins.zoo_mmpretrain.running.settings import pipeline_size

__all__ = ['image_size', 'read_recipe', 'rescale', 'row_recipe']

OURS = ('methods', 'method_hooks', 'asked')  # of a recipe, besides what trains


def read_recipe(
    mode: str,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    size: int | None = None,
) -> dict[str, Any]:
    """A mode's recipe as plain data, with what the user asked for otherwise.

    Args:
        mode: 'quick' | 'finetune'.
        epochs: another length.
        batch_size: images a step.
        lr: rate.
        size: side of the images, for networks that take any.

    Raises:
        UserError: for a number out of range.
    """
    for name, given in (('epochs', epochs), ('batch-size', batch_size), ('size', size)):
        if given is not None and given < 1:
            raise UserError(f'--{name} {given}: must be a whole number, 1 or more')
    if lr is not None and not 0 < lr < float('inf'):
        raise UserError(f'--lr {lr:g}: must be above 0, as 0.001')
    file = shipped_folder('configs') / '_base_' / 'recipes' / f'{mode}.py'
    recipe = {key: _as_json(value) for key, value in Config.fromfile(str(file)).to_dict().items()}
    if size is not None:
        recipe['size'] = size
    given = {'epochs': epochs, 'batch_size': batch_size, 'lr': lr}
    given = {key: value for key, value in given.items() if value is not None}
    return {**recipe, **(given if mode == 'quick' else {'asked': given})}


def image_size(recipe: dict[str, Any], backbone: str) -> int | tuple[int, int] | None:
    """The size of the images that a row is trained and tested on; None for the network's own.

    Args:
        recipe: see `row_recipe`.
        backbone: name of the network.
    """
    if 'test_dataloader' not in recipe:  # quick: as timm tests the network
        return recipe.get('size')
    settings = look_up_network(backbone)
    if settings is not None and settings.fixed_input_size:
        return None
    pipeline = recipe['test_dataloader']['dataset']['pipeline']
    return recipe.get('size') or pipeline_size(pipeline)


def _with_options(recipe: dict[str, Any], **asked: float) -> dict[str, Any]:
    """A recipe of the runner with another length, batch or rate, as `tools/train.py` sets them."""
    cfg = Config(recipe)
    set_options(cfg, argparse.Namespace(**asked), {})
    return _as_json(cfg.to_dict())


def rescale(recipe: dict[str, Any], mode: str, rate: float, length: float) -> dict[str, Any]:
    """A row's recipe with multiples of its rate and length.

    Args:
        recipe: see `row_recipe`.
        mode: 'quick' | 'finetune'.
        rate: times the rate.
        length: times the number of epochs.
    """
    if mode == 'quick':
        epochs = max(1, round(recipe['epochs'] * length))
        return {**recipe, 'epochs': epochs, 'lr': _short(recipe['lr'] * rate)}
    epochs = max(1, round(recipe['train_cfg']['max_epochs'] * length))
    lr = _short(recipe['optim_wrapper']['optimizer']['lr'] * rate)
    return _with_options(recipe, epochs=epochs, lr=lr)


def _short(number: float) -> float:
    return float(f'{number:.4g}')


def _as_json(value: Any) -> Any:
    """Tuples as lists, as they are after a file of JSON."""
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    return [_as_json(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def row_recipe(recipe: dict[str, Any], row: str) -> dict[str, Any]:
    """What one row is trained by: the recipe, the method's arguments and its hooks.

    Args:
        recipe: see `read_recipe`.
        row: of the comparison, as 'warn' or 'warn:heads=2'.
    """
    method, arguments = split_variant(row)
    common = {key: value for key, value in recipe.items() if key not in OURS}
    own = {**recipe.get('methods', {}).get(method, {}), **arguments}
    if 'asked' in recipe:  # of the runner
        hooks = recipe['method_hooks'].get(method, [])
        common['custom_hooks'] = [*common['custom_hooks'], *hooks]
        common = _with_options(common, **recipe['asked'])
    return {**common, 'arguments': _as_json(own)}
