"""What a training looks at after every epoch: validation images, where there are any."""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from fgplugins.data.class_folders import has_validation
from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.datasets import FineGrainedImages
from fgplugins.zoo_mmpretrain.running.settings import innermost_datasets, short_type

__all__ = ['set_validation']


def set_validation(cfg: Config, share: float | None) -> None:
    """Validate on ``val/`` where a folder has one, or on a share of the training images.

    The test images wait for ``tools/test.py`` then.

    Args:
        cfg: changed in place.
        share: of each class's training images, given by ``--val-share``; None for the config's.

    Raises:
        UserError: if it is no share, or the data are of another type.
    """
    train, val = _datasets(cfg, 'train'), _datasets(cfg, 'val')
    if share is not None:
        if not 0 <= share < 1:
            raise UserError(f'--val-share {share:g}: must be at least 0 and below 1, as 0.1')
        wrong = next((d for d in train + val if not _is_ours(d)), None)
        if wrong is not None:
            raise UserError(
                f'--val-share: the data are {short_type(wrong)}: only '
                f'{FineGrainedImages.__name__} can be divided'
            )
        for dataset in train + val:
            dataset.val_share = share
        for dataset in val:
            dataset.split = 'val' if share else 'test'
    for dataset in val:
        own = _is_ours(dataset) and dataset.get('split') == 'test'
        if own and has_validation(str(dataset.get('data_root'))):
            dataset.split = 'val'


def _datasets(cfg: Config, split: str) -> list[ConfigDict]:
    loader = cfg.get(f'{split}_dataloader')
    return innermost_datasets(loader.dataset) if loader else []


def _is_ours(dataset: ConfigDict) -> bool:
    return short_type(dataset) == FineGrainedImages.__name__
