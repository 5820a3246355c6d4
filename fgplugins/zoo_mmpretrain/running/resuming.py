"""Going on from a checkpoint: which one, whether this training can, and whether it is done."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.running.saved_settings import counts_iterations
from fgplugins.zoo_mmpretrain.running.settings import short_type
from fgplugins.zoo_mmpretrain.running.work_folder import is_result, latest_checkpoint

__all__ = ['check_resume', 'check_sources', 'is_finished', 'is_resumed', 'set_resume']


def set_resume(cfg: Config, resume: str | None) -> None:
    """Make the config go on from a checkpoint.

    Args:
        cfg: changed in place.
        resume: a path, 'auto' for the newest one in the work folder, None to leave the config.
    """
    if resume is None:
        return
    cfg.resume = True
    if resume == 'auto':
        found = latest_checkpoint(cfg.work_dir)
        if found is None:
            print(f'note: no checkpoint in {cfg.work_dir} to resume from; starting anew')
        resume = None if found is None else str(found)
    cfg.load_from = resume


def is_resumed(cfg: Config) -> bool:
    """Whether a training goes on from a checkpoint, rather than start from its weights."""
    return bool(cfg.get('load_from') and cfg.get('resume'))


def check_resume(content: dict, path: str, cfg: Config) -> None:
    """Refuse a checkpoint that this training cannot go on from.

    Raises:
        UserError: if it holds no more than weights, or counted epochs where the config counts
            iterations, or the other way round, or averaged its weights where the config does not.
    """
    lacking = [key for key in ('optimizer', 'message_hub') if key not in content]
    meta = content.get('meta')
    if lacking or not isinstance(meta, dict) or not {'epoch', 'iter'} <= set(meta):
        raise UserError(
            f'--resume {path!r}: it holds weights, but not the state of a training: start from it '
            f'by --cfg-options load_from={path}'
        )
    by_iterations = bool(cfg.train_cfg.get('max_iters'))
    saved = counts_iterations(content)
    if saved is not None and saved != by_iterations:
        units = ('iterations', 'epochs') if saved else ('epochs', 'iterations')
        raise UserError(
            f'--resume {path!r}: its training counted {units[0]}, the config counts {units[1]}: '
            'use the config that was saved in its folder'
        )
    _check_averages(content, path, cfg)


def _check_averages(content: dict, path: str, cfg: Config) -> None:
    """Refuse averages in the place of the weights that a training would go on from.

    Raises:
        UserError: if the checkpoint has averages, and the config none.
    """
    averages = [h for h in cfg.get('custom_hooks') or [] if short_type(h) == 'EMAHook']
    if 'ema_state_dict' in content and not averages:
        raise UserError(f'--resume {path!r}: its training averaged the weights: add --ema')


def check_sources(cfg: Config, *files: str | None) -> None:
    """Refuse to start from a file that the new run would set aside.

    Raises:
        UserError: naming the file.
    """
    for file in files:
        inside = file and Path(file).resolve().parent == Path(cfg.work_dir).resolve()
        if inside and is_result(Path(file)):
            raise UserError(
                f'{file} lies in the work folder of this run, which sets such files aside: give '
                'another --work-dir'
            )


def is_finished(cfg: Config, meta: dict, path: str) -> bool:
    """Whether a checkpoint is of the last epoch, or iteration, that the config asks for; say so.

    Args:
        cfg: the config.
        meta: the checkpoint's.
        path: of the checkpoint.
    """
    key, unit = ('iter', 'iteration') if cfg.train_cfg.get('max_iters') else ('epoch', 'epoch')
    finished = meta[key] >= (cfg.train_cfg.get(f'max_{key}s') or float('inf'))
    if finished:
        print(f'note: {path} is of the last {unit} already ({meta[key]}): its result')
    else:
        print(f'note: goes on from {path}, after {unit} {meta[key]}')
    return finished
