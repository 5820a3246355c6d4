"""How a config is launched: processes, precision, hooks, length, and the runner."""

from __future__ import annotations

import os

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import get_dist_info
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from fgplugins.errors import UserError
from fgplugins.utils.memory import keep_freed_memory
from fgplugins.zoo_mmpretrain.running.errors import user_errors
from fgplugins.zoo_mmpretrain.running.settings import SPLITS, short_type
from fgplugins.zoo_mmpretrain.running.terminal import few_lines

__all__ = [
    'add_hooks',
    'build_runner',
    'check_length',
    'is_main_process',
    'set_amp',
    'set_launcher',
    'set_rate_scaling',
]


def add_hooks(cfg: Config) -> None:
    """Add the hooks that every training has, whatever its config."""
    hooks = list(cfg.get('custom_hooks') or [])
    known = {short_type(hook) for hook in hooks if isinstance(hook, dict)}
    for name in ('FiniteGradientHook', 'WorkFolderHook'):
        if name not in known:
            hooks.append(ConfigDict(type=f'fgplugins.{name}'))
    cfg.custom_hooks = hooks


def check_length(cfg: Config) -> None:
    """Refuse a training without a step, empty batches, and odd numbers of workers.

    Raises:
        UserError: naming the setting.
    """
    for key in ('max_epochs', 'max_iters', 'val_interval'):
        length = (cfg.get('train_cfg') or {}).get(key)
        if length is not None and (type(length) is not int or length < 1):
            raise UserError(f'train_cfg.{key}={length!r}: must be a whole number, 1 or more')
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, least in (('batch_size', 1), ('num_workers', 0)):
            number = loader.get(key)
            if number is not None and (type(number) is not int or number < least):
                raise UserError(
                    f'{split}_dataloader.{key}={number!r}: must be a whole number, {least} or more'
                )


def set_amp(cfg: Config) -> None:
    """Train in mixed precision: by the zoo's wrapper on a GPU, by bfloat16 autocast elsewhere."""
    if get_device() == 'cuda':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'fgplugins.AutocastOptimWrapper'
        cfg.optim_wrapper.device_type = 'cpu'


def set_launcher(cfg: Config, launcher: str) -> None:
    """Join the processes of a launcher: by NCCL on GPUs, as MMPretrain does, by gloo on CPUs.

    Raises:
        UserError: if the launcher's variables are not set, or it needs GPUs that are not there.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch is for torchrun: torchrun --nproc-per-node 2 tools/train.py CONFIG '
            '--launcher pytorch, or tools/dist_train.sh CONFIG 2'
        )
    if get_device() == 'cuda':
        return
    if launcher != 'pytorch':
        raise UserError(f'--launcher {launcher} needs GPUs; on CPUs use torchrun and pytorch')
    torch.distributed.init_process_group(backend='gloo')
    cfg.env_cfg = cfg.get('env_cfg') or {}
    cfg.env_cfg.setdefault('dist_cfg', {})['backend'] = 'gloo'
    cfg.model_wrapper_cfg = ConfigDict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
    )


def is_main_process() -> bool:
    """Whether this is the first process; known before the processes have joined, too."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return get_dist_info()[0] == 0
    return int(os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or 0) == 0


def set_rate_scaling(cfg: Config) -> None:
    """Scale the rate by batch size and processes, as ``--auto-scale-lr`` asks for.

    Raises:
        UserError: if the config does not say for which batch size its rate is.
    """
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise UserError(
            '--auto-scale-lr: the config does not say for which batch size its rate is: '
            'auto_scale_lr=dict(base_batch_size=256)'
        )
    cfg.auto_scale_lr.enable = True


def build_runner(cfg: Config, display: str = 'auto') -> Runner:
    """Mmengine's runner, or the one that the config names.

    Args:
        cfg: the config.
        display: 'verbose' prints every line of its log; else only warnings are printed.
    """
    if get_device() == 'cpu':
        keep_freed_memory()
    with user_errors('runner'):
        cls = RUNNERS.get(cfg.get('runner_type', 'Runner'))
        if cls is None:
            raise UserError(f'runner_type={cfg.runner_type!r} is not registered')
        return (cls if display == 'verbose' else few_lines(cls)).from_cfg(cfg)
