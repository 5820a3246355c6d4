"""Hooks of a training: seeds, ART's schedule, a stop at infinite gradients, folders that moved."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.registry import FUNCTIONS, HOOKS, register

__all__ = [
    'EpochSeedHook',
    'FiniteGradientHook',
    'LeaveOutHook',
    'RestrictionScheduleHook',
    'WorkFolderHook',
    'seed_worker',
]


def seed_worker(worker_id: int) -> None:
    """Seed a data-loading worker from torch, which draws anew each epoch.

    mmengine's own function repeats the same augmentations every epoch.
    """
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)


class EpochSeedHook(Hook):
    """Seeds python, numpy and torch from (seed, epoch, rank) before each epoch.

    Checkpoints hold no random state; with this hook a resumed run goes on bit for bit as the
    uninterrupted one would have.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        mixed = np.random.SeedSequence([runner.seed, runner.epoch, get_rank()])
        seed = int(mixed.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


class RestrictionScheduleHook(Hook):
    """Switches L_res off and on, ``period`` epochs each, after ``begin`` epochs (CRA-CNN, 4.1).

    Args:
        begin: how many epochs it is on at first.
        period: how many epochs each state lasts.

    Raises:
        ValueError: for a negative ``begin``, or a ``period`` below one epoch.
    """

    def __init__(self, begin: int = 50, period: int = 45) -> None:
        if begin < 0 or period < 1:
            raise ValueError(
                f'RestrictionScheduleHook: begin={begin}, period={period}: begin must be at least '
                '0, period at least 1'
            )
        self.begin, self.period = begin, period

    def before_train_epoch(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        regularizer = getattr(model, 'regularizer', None)
        if 'restriction' not in getattr(regularizer, 'optional_terms', ()):
            raise ValueError(
                f'RestrictionScheduleHook: {type(model).__name__} with '
                f'{type(model.head).__name__} has no attention restriction; it is for ARTHead'
            )
        past = runner.epoch - self.begin
        is_on = past < 0 or past // self.period % 2 == 1
        regularizer.leave_out(*([] if is_on else ['restriction']))


class LeaveOutHook(Hook):
    """Starts from a checkpoint without some of its weights, as those of another classifier.

    Args:
        prefixes: beginnings of the names of what is left out.
    """

    def __init__(self, prefixes: Sequence[str]) -> None:
        self.prefixes = tuple(prefixes)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        weights = checkpoint.get('state_dict', checkpoint)
        for key in [k for k in weights if k.removeprefix('module.').startswith(self.prefixes)]:
            del weights[key]


class FiniteGradientHook(Hook):
    """Ends the training before a gradient that is not finite spoils the weights.

    Where gradients are scaled (float16), the scaler leaves such steps out by itself, and this hook
    does not see them.
    """

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        names = {id(p): name for name, p in runner.model.named_parameters()}

        def check(optimizer: torch.optim.Optimizer, *_: object) -> None:
            parameters = [p for group in optimizer.param_groups for p in group['params']]
            parameters = [p for p in parameters if p.grad is not None]
            gradients = [p.grad for p in parameters]
            if not gradients or torch.nn.utils.get_total_norm(gradients).isfinite():
                return
            terms = runner.message_hub.get_info('loss_terms', {})
            listed = ', '.join(f'{name} {float(value):.3g}' for name, value in terms.items())
            bad = next((p for p in parameters if not p.grad.isfinite().all()), parameters[0])
            raise UserError(
                f'the gradient of {names.get(id(bad), "a parameter")} is not finite in iteration '
                f'{runner.iter + 1}' + (f' ({listed})' if listed else '') + ': lower the rate'
            )

        for optimizer in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            optimizer.optimizer.register_step_pre_hook(check)


class WorkFolderHook(Hook):
    """Lets a run go on in a folder that was moved or copied, and runs no code of a checkpoint.

    mmengine keeps the paths of the best and the last checkpoint, and removes a best one that is
    surpassed: in a copy that would be the original's.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint.get('meta', {}).pop('config', None)  # mmengine would execute it
        if any(isinstance(hook, CheckpointHook) and hook.out_dir for hook in runner.hooks):
            return  # checkpoints are kept elsewhere
        known = checkpoint.get('message_hub', {}).get('runtime_info', {})
        for key, saved in known.items():
            if isinstance(saved, str) and key.startswith(('best_ckpt', 'last_ckpt')):
                known[key] = str(Path(runner.work_dir) / re.split(r'[\\/]', saved)[-1])


register(FUNCTIONS, seed_worker)
register(HOOKS, EpochSeedHook)
register(HOOKS, FiniteGradientHook)
register(HOOKS, WorkFolderHook)
register(HOOKS, RestrictionScheduleHook)
