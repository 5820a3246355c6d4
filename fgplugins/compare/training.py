"""A cell that trains the whole network, by MMPretrain's runner."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fgplugins.compare.cells import RUN, Cell, split_variant
from fgplugins.compare.jobs import is_whole, read_json, write_json
from fgplugins.errors import UserError
from fgplugins.methods import get_method
from fgplugins.utils.modes import in_testing
from fgplugins.utils.whole_file import whole_file
from fgplugins.zoo_mmpretrain.running import (
    data,
    initial_weights,
    launching,
    resuming,
)
from fgplugins.zoo_mmpretrain.running.checkpoints import harmless_checkpoints
from fgplugins.zoo_mmpretrain.running.errors import logged_errors
from fgplugins.zoo_mmpretrain.running.settings import all_datasets
from fgplugins.zoo_mmpretrain.running.timm_backbones import resize, set_backbone
from fgplugins.zoo_mmpretrain.running.work_folder import checkpoint_number, latest_checkpoint

__all__ = ['FineTuned', 'config_of', 'shrink']

SECONDS = 'seconds.json'  # of a run: how long its epochs took


def config_of(cell: Cell, data_root: Path, num_classes: int, folder: Path) -> Config:
    """The config that a cell is trained by.

    Args:
        cell: it.
        data_root: the split file.
        num_classes: Y.
        folder: of the cell.
    """
    recipe = dict(cell.recipe)
    arguments, size = dict(recipe.pop('arguments')), recipe.pop('size', None)
    cfg = Config(recipe)
    method, _ = split_variant(cell.method)
    head = {'type': f'{get_method(method).__name__}Head', 'num_classes': num_classes}
    network = {'type': 'TimmNetwork', 'model_name': cell.backbone}
    # which part of what a row differs by is the network's, and which the method's
    network |= {key: arguments.pop(key) for key in ('head', 'levels') if key in arguments}
    cfg.model = dict(type='FineGrainedClassifier', backbone=network, head={**head, **arguments})
    if size is not None:
        resize(cfg, (size, size))
    set_backbone(cfg, cell.backbone)  # which may take one size only
    cfg.model.backbone = ConfigDict(network, pretrained=True)
    for dataset in all_datasets(cfg):
        dataset.data_root = str(data_root)
    # mmengine removes the one before while it writes a new one, so two are kept
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, max_keep_ckpts=2)
    _share_batch(cfg, int(os.environ.get('WORLD_SIZE', '1')))
    cfg.randomness = dict(seed=cell.seed)
    cfg.work_dir = str(folder / RUN)
    # the scores of the last epoch are computed once, when all is chosen
    cfg.val_cfg = cfg.val_evaluator = cfg.val_dataloader = None
    return cfg


def _share_batch(cfg: Config, processes: int) -> None:
    """Give every process its part of the recipe's batch, so that a step has as many images.

    Raises:
        UserError: if it cannot be divided.
    """
    size = cfg.train_dataloader.batch_size
    if size % processes:
        raise UserError(
            f'{processes} devices of a cell do not divide a batch of {size} images: a --batch-size '
            f'that they do, as {processes * -(-size // processes)}'
        )
    cfg.train_dataloader.batch_size = size // processes


def _seconds_until(folder: Path, epoch: int) -> list[float]:
    """The seconds until the end of each of the first epochs, as far as a run's folder knows."""
    known = (read_json(folder / SECONDS) or {}).get('until_epoch', [])
    return known[:epoch]


class _ProgressHook(Hook):
    """Notes how long the epochs took, those of earlier processes too."""

    def __init__(self, folder: Path, progress: Callable[[int, int, float], None]) -> None:
        self.folder, self.progress = folder, progress

    def before_train(self, runner: Runner) -> None:
        self.start = time.perf_counter()
        self.known = _seconds_until(self.folder, runner.epoch)
        self.earlier = self.known[-1] if self.known else 0.0

    def after_train_epoch(self, runner: Runner) -> None:
        if launching.is_main_process():
            seconds = self.earlier + time.perf_counter() - self.start
            self.known.append(round(seconds, 3))
            write_json(self.folder / SECONDS, {'until_epoch': self.known})
            self.progress(runner.epoch + 1, runner.max_epochs, seconds)


class FineTuned:
    """A cell's training; `train`, then `scores`.

    Args:
        cell: what is trained.
        data_root: the split file.
        num_classes: Y.
        folder: of the cell.

    Attributes:
        cfg: the config.
        earlier: seconds that earlier processes took for the epochs that are done.

    Raises:
        UserError: if the config cannot be built or run.
    """

    def __init__(self, cell: Cell, data_root: Path, num_classes: int, folder: Path) -> None:
        cfg = config_of(cell, data_root, num_classes, folder)
        launching.set_launcher(cfg, 'pytorch' if 'RANK' in os.environ else 'none')
        data.prepare_loaders(cfg)
        launching.add_hooks(cfg)
        run = Path(cfg.work_dir)
        _remove_cut_off(run)
        done = latest_checkpoint(run)
        resuming.set_resume(cfg, 'auto')
        if resuming.is_resumed(cfg):
            initial_weights.drop_pretrained(cfg.model)
        data.match_classes(cfg, ('train',))
        epochs = 0 if done is None else checkpoint_number(done)
        self.earlier = sum(_seconds_until(run, epochs)[-1:])
        self.trained = epochs >= cfg.train_cfg.max_epochs
        if self.trained:  # nothing is left to go on with, and `shrink` leaves only weights
            cfg.resume = False
        self.cfg = cfg

    def train(self, progress: Callable[[int, int, float], None]) -> nn.Module:
        """Train to the last epoch, going on where an earlier process stopped.

        Args:
            progress: called after each epoch with its number, that of all, and the seconds so
                far, of earlier processes too.

        Returns:
            The classifier.
        """
        with harmless_checkpoints():
            runner = launching.build_runner(self.cfg, 'verbose')
            runner.register_hook(_ProgressHook(Path(self.cfg.work_dir), progress))
            # which CPUs train faster; gradients of several processes have a layout already
            if get_device() == 'cpu' and not is_model_wrapper(runner.model):
                runner.model.to(memory_format=torch.channels_last)
            with logged_errors(runner):
                if self.trained:
                    runner.load_or_resume()
                else:
                    runner.train()
        model = runner.model
        self.model = model.module if is_model_wrapper(model) else model
        return self.model

    def scores(self, part: str) -> Tensor:
        """Scores (n, Y) of all images of 'val' or 'test', in their order."""
        settings, model, found = self.cfg.test_dataloader, self.model, []
        loader = DataLoader(
            DATASETS.build({**settings.dataset, 'split': part}),
            settings.batch_size,
            num_workers=settings.num_workers,
            collate_fn=pseudo_collate,
        )
        with torch.no_grad(), in_testing(model):
            for batch in loader:
                inputs = model.data_preprocessor(batch, training=False)['inputs']
                found.append(model.head(model.extract_feat(inputs)).float().cpu())
        return torch.cat(found)


def _remove_cut_off(run: Path) -> None:
    """Remove checkpoints that were cut off while they were written."""
    for path in run.glob('*.pth'):
        if not is_whole(path):
            print(f'note: {path} cannot be read and is removed')
            path.unlink(missing_ok=True)


def shrink(folder: Path) -> None:
    """Leave out of a cell's last checkpoint what only going on would need, and the one before it.

    Args:
        folder: of the cell.
    """
    path = latest_checkpoint(folder / RUN)
    content = torch.load(path, map_location='cpu', weights_only=False)
    for key in ('optimizer', 'param_schedulers', 'message_hub'):
        content.pop(key, None)
    weights = content['state_dict']
    content['state_dict'] = {key: value.contiguous() for key, value in weights.items()}
    with whole_file(path) as file:
        torch.save(content, file)
    for earlier in path.parent.glob('epoch_*.pth'):
        if earlier != path:
            earlier.unlink()
