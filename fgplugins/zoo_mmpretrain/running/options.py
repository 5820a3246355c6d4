"""The options that set what a config says: length, batches, rate, averages, workers, device."""

from __future__ import annotations

import argparse
import math

import torch
from mmengine import device as mmengine_device
from mmengine.config import Config, ConfigDict

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.running.schedule import stretch
from fgplugins.zoo_mmpretrain.running.settings import SPLITS, short_type

__all__ = ['set_device', 'set_options']


def set_options(cfg: Config, args: argparse.Namespace, overrides: dict[str, object]) -> list[str]:
    """Set what the options say, before ``--cfg-options``, which win, are put into the config.

    Args:
        cfg: changed in place.
        args: the command line; a tool need not have all of the options.
        overrides: by ``--cfg-options``.

    Returns:
        Notes on what follows from them.

    Raises:
        UserError: for a number out of range, or what the config has no place for.
    """
    for name, least in (('epochs', 1), ('batch_size', 1), ('workers', 0)):
        number = getattr(args, name, None)
        if number is not None and number < least:
            option = name.replace('_', '-')
            raise UserError(f'--{option} {number}: must be a whole number, {least} or more')
    notes = []
    if getattr(args, 'epochs', None) is not None:
        demanded = overrides.get('train_cfg.max_epochs', args.epochs)
        if type(demanded) is int and demanded > 0:  # others are refused by `check_length`
            notes.append(stretch(cfg, demanded))
    if getattr(args, 'batch_size', None) is not None:
        cfg.train_dataloader.batch_size = args.batch_size
    if getattr(args, 'workers', None) is not None:
        _set_workers(cfg, args.workers)
    if getattr(args, 'lr', None) is not None:
        _set_rate(cfg, args.lr)
    if getattr(args, 'ema', None) is not None:
        _set_averages(cfg, args.ema)
    return [note for note in notes if note]


def _set_workers(cfg: Config, count: int) -> None:
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            loader.num_workers = count
            for key in ('persistent_workers', 'prefetch_factor') if count == 0 else ():
                loader.pop(key, None)  # torch refuses them without workers


def _set_rate(cfg: Config, rate: float) -> None:
    if not (math.isfinite(rate) and rate > 0):
        raise UserError(f'--lr {rate:g}: must be above 0, as 0.01')
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    if not isinstance(optimizer, dict):
        raise UserError(
            f'--lr {rate:g}: the config has no optim_wrapper.optimizer, whose rate it would be'
        )
    optimizer.lr = rate


def _set_averages(cfg: Config, momentum: float) -> None:
    """Average the weights: over the last steps at first, over more and more of them later."""
    if not 0 < momentum < 1:
        raise UserError(f'--ema {momentum:g}: must be between 0 and 1, as 0.0002')
    others = [h for h in cfg.get('custom_hooks') or [] if short_type(h) != 'EMAHook']
    # a share that is small from the first step on would keep the weights of the start
    hook = dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=momentum,
                update_buffers=True)  # fmt: skip
    cfg.custom_hooks = [*others, ConfigDict(hook)]


def set_device(name: str) -> None:
    """Run on a device rather than on the one that mmengine chooses.

    Raises:
        UserError: if it is not there.
    """
    if name == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch finds no GPU here: use --device cpu')
    if name != 'auto':
        mmengine_device.utils.DEVICE = name  # all that mmengine asks
