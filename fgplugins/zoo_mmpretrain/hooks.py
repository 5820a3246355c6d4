"""Hooks: repeatable randomness that survives a resume, and pictures of the attention."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_rank, master_only
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from fgplugins.errors import UserError
from fgplugins.utils.drawing import draw_attention
from fgplugins.utils.lettering import shortened
from fgplugins.utils.modes import in_testing
from fgplugins.zoo_mmpretrain.colours import as_rgb, dataset_gives_bgr
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.registry import FUNCTIONS, HOOKS, register

__all__ = [
    'AttentionMapHook',
    'EpochSeedHook',
    'FiniteGradientHook',
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
    """CRA-CNN, section 4.1: after ``begin`` epochs L_res is off and on, ``period`` epochs each.

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
        if not hasattr(regularizer, 'restricted'):
            raise ValueError(
                f'RestrictionScheduleHook: {type(model).__name__} with '
                f'{type(model.head).__name__} has no attention restriction; it is for ARTHead'
            )
        past = runner.epoch - self.begin
        regularizer.restricted = past < 0 or past // self.period % 2 == 1


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


class AttentionMapHook(Hook):
    """After training, draws the attention maps of some test images into the work directory.

    They are those of the weights that were tested: the averages, if there is an ``EMAHook``.

    Args:
        num_images: how many images, evenly spaced over the test split.
        file_name: name of the PNG.
    """

    priority = 'LOW'

    def __init__(self, num_images: int = 8, file_name: str = 'attention_maps.png') -> None:
        self.num_images, self.file_name = num_images, file_name

    @master_only
    def after_train(self, runner: Runner) -> None:
        if runner.val_loop is None:
            runner.logger.info('no validation data, so no attention maps are drawn')
            return
        dataset = runner.val_dataloader.dataset
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        head = getattr(model, 'head', None)
        if not isinstance(head, MethodHead):
            name = type(head or model).__name__
            runner.logger.info(f'{name} has no attention, so no attention maps are drawn')
            return
        count = min(self.num_images, len(dataset))
        samples = [dataset[i * len(dataset) // count] for i in range(count)]
        names = dataset.metainfo.get('classes')
        path = Path(runner.work_dir) / self.file_name
        bgr = dataset_gives_bgr(dataset, bool(model.data_preprocessor.to_rgb))
        with tested_weights(runner):
            draw_samples(model, samples, names, path, bgr)
        runner.logger.info(f'attention maps of {count} test images: {path}')


@contextmanager
def tested_weights(runner: Runner) -> Iterator[None]:
    """Inside, the model has the weights that validation tests: the averaged ones, where there are.

    Afterwards it has its own again.
    """
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for hook in averages:
        hook.before_val_epoch(runner)
    try:
        yield
    finally:
        for hook in averages:
            hook.after_val_epoch(runner)


def draw_samples(
    model: torch.nn.Module,
    samples: list[dict],
    classes: list[str] | None,
    path: Path,
    bgr: bool,
) -> None:
    """Draw the attention of a classifier with a method's head over samples of its test pipeline.

    Args:
        model: left as it is.
        samples: what the pipeline gives.
        classes: their names; numbers if None.
        path: the PNG to write.
        bgr: whether blue is first in ``samples``.
    """

    def name(label: int) -> str:
        return shortened(classes[label] if classes else label)

    images, maps, captions = [], [], []
    with in_testing(model):
        for sample in samples:
            batch = {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}
            inputs = model.data_preprocessor(batch, training=False)['inputs']
            with model.head.method.looking_at(inputs) as inputs:
                features = model.extract_feat(inputs)
                label = int(model.head(features).argmax(dim=1))
                masks = model.head.attention(features)
            images.append(as_rgb(sample['inputs'], bgr))
            maps.append([level[0].detach().float().cpu().numpy() for level in masks])
            truth = [name(int(t)) for t in sample['data_samples'].get('gt_label', [])]
            captions.append(f'{name(label)} ({", ".join(truth)})' if truth else name(label))
    draw_attention(images, maps, captions, path)


register(FUNCTIONS, seed_worker)
register(HOOKS, EpochSeedHook)
register(HOOKS, AttentionMapHook)
register(HOOKS, FiniteGradientHook)
register(HOOKS, WorkFolderHook)
register(HOOKS, RestrictionScheduleHook)
