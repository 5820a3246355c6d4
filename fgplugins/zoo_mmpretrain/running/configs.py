"""A config from the command line: found, read, overridden, and given its folders."""

from __future__ import annotations

import argparse
import difflib
import re
from pathlib import Path

from mmengine.config import Config

from fgplugins.errors import UserError
from fgplugins.utils.shipped import shipped_configs, shipped_folder
from fgplugins.zoo_mmpretrain.running.control import set_control
from fgplugins.zoo_mmpretrain.running.errors import user_errors
from fgplugins.zoo_mmpretrain.running.inheritance import drop_settings_of_other_types
from fgplugins.zoo_mmpretrain.running.options import set_options
from fgplugins.zoo_mmpretrain.running.overrides import override
from fgplugins.zoo_mmpretrain.running.settings import (
    SPLITS,
    all_datasets,
    name_types,
)
from fgplugins.zoo_mmpretrain.running.timm_backbones import set_backbone
from fgplugins.zoo_mmpretrain.running.validation import set_validation
from fgplugins.zoo_mmpretrain.running.work_folder import is_run

__all__ = ['find_config', 'load_config']


def find_config(name: str) -> Path:
    """A config by path, or by the name of one that is shipped (with or without .py).

    Raises:
        UserError: if there is none; the message lists names that are close.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_folder('configs') / f'{path.name.removesuffix(".py")}.py'
    if shipped.is_file():
        return shipped
    names = shipped_configs()
    close = difflib.get_close_matches(path.stem, names, 3) or names
    raise UserError(f'config {name!r} is not a file; shipped ones: {", ".join(close)}')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config named on the command line, with its overrides, work and data folders."""
    path = find_config(args.config)
    overrides = args.cfg_options or {}
    with user_errors(f'config {path}'):
        cfg = Config.fromfile(path)
        cfg = Config(name_types(cfg.to_dict()), filename=cfg.filename)
    backbone, control = getattr(args, 'backbone', None), getattr(args, 'control', False)
    notes = set_backbone(cfg, backbone) if backbone else []
    notes += set_control(cfg, overrides) if control else []
    notes += set_options(cfg, args, overrides)
    for note in notes:
        print(f'note: {note}')
    override(cfg, overrides)
    _check_sections(cfg, path)
    for note in drop_settings_of_other_types(cfg, path, overrides):
        print(f'note: {note}')
    _note_schedule_length(cfg, overrides)
    # a hub's name has a folder's signs in it
    parts = (['control'] if control else []) + (
        [re.sub(r'[^\w.-]', '_', backbone)] if backbone else []
    )
    _set_work_folder(cfg, path, args.work_dir, parts)
    if args.data_root is not None:
        for dataset in all_datasets(cfg):
            dataset.data_root = args.data_root
    set_validation(cfg, getattr(args, 'val_share', None))
    return cfg


def _check_sections(cfg: Config, path: Path) -> None:
    for section in ('model', *(f'{split}_dataloader' for split in SPLITS)):
        if cfg.get(section) is not None and not isinstance(cfg[section], dict):
            raise UserError(f'{section}={cfg[section]!r}: must be a dict')
    if not cfg.get('model'):
        raise UserError(f'config {path}: it has no model')


def _set_work_folder(cfg: Config, path: Path, given: str | None, parts: list[str]) -> None:
    if given:
        cfg.work_dir = given
    elif is_run(path.parent):  # the config of a run, in its folder wherever that is now
        cfg.work_dir = str(path.parent)
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs') / '_'.join([path.stem, *parts]))
    if Path(cfg.work_dir).exists() and not Path(cfg.work_dir).is_dir():
        raise UserError(f'--work-dir {cfg.work_dir} is a file, not a folder')


def _note_schedule_length(cfg: Config, overrides: dict[str, object]) -> None:
    """Say so where a user changed the number of epochs, but not the length of the schedule."""
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if 'train_cfg.max_epochs' not in overrides:
        return
    schedulers = cfg.get('param_scheduler') or []
    listed = isinstance(schedulers, (list, tuple))
    for i, scheduler in enumerate(schedulers if listed else [schedulers]):
        name = f'param_scheduler.{i}' if listed else 'param_scheduler'
        length = scheduler.get('T_max')
        if length is None or not scheduler.get('by_epoch', True):
            continue
        if not isinstance(epochs, int):
            return  # refused by `check_length`
        fitting = epochs - scheduler.get('begin', 0)
        if length != fitting and f'{name}.T_max' not in overrides:
            print(
                f'note: train_cfg.max_epochs={epochs}, but the rate falls over {length} epochs: '
                f'add {name}.T_max={fitting} to let it fall over the whole training, or '
                f'train with --epochs {epochs} instead'
            )
