"""The data of a config: built, matched with the model's classes, and checked before the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmpretrain.registry import DATASETS

from fgplugins.data.classes import check_same_classes
from fgplugins.data.duplicates import same_files
from fgplugins.data.images import check_readable, image_paths, printable
from fgplugins.errors import UserError
from fgplugins.utils.progress_bar import progress_bar
from fgplugins.zoo_mmpretrain.datasets import FineGrainedImages
from fgplugins.zoo_mmpretrain.running.errors import one_line_with_hint, user_errors
from fgplugins.zoo_mmpretrain.running.settings import (
    SPLITS,
    all_datasets,
    innermost_datasets,
    short_type,
)
from fgplugins.zoo_mmpretrain.transforms import LoadImage

__all__ = ['check_images', 'match_classes', 'prepare_loaders']

# what MMPretrain's own data sets expect; their errors only say what was not found
ZOO_LAYOUTS = {
    'ImageNet': 'train/<class>/*.JPEG and val/<class>/*.JPEG',
    'VOC': 'JPEGImages/*.jpg, Annotations/*.xml, ImageSets/Main/train.txt and val.txt',
}


def prepare_loaders(cfg: Config) -> None:
    """Fill in defaults of the data loaders; their workers draw new random numbers every epoch."""
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            loader.setdefault('pin_memory', get_device() == 'cuda')
            loader.setdefault('persistent_workers', False)
            loader.setdefault('worker_init_fn', ConfigDict(type='fgplugins.seed_worker'))
            loader.setdefault('collate_fn', ConfigDict(type='default_collate'))


def match_classes(
    cfg: Config,
    splits: tuple[str, ...],
    overrides: dict | None = None,
    checkpoint: tuple[str, Sequence[str] | None] | None = None,
) -> dict[str, object]:
    """Build the data sets, and set the model's number of classes by them.

    The number of classes of the head is counted in the data, unless ``--cfg-options`` gives one.

    Args:
        cfg: changed in place.
        splits: which of 'train', 'val', 'test' will be used.
        overrides: what the user gave by ``--cfg-options``.
        checkpoint: path of a checkpoint that the data have to fit, and the names of its classes.
            Data whose classes are the same in another order are read in the checkpoint's order,
            where the data set can do that.

    Returns:
        The built data sets by split.

    Raises:
        UserError: if a data set cannot be built, or has other classes than demanded.
    """
    built = _build_datasets(cfg, splits)
    if not built:
        raise UserError(f'the config has no data for {" or ".join(splits)}')
    path, theirs = checkpoint or ('', None)
    if theirs and any(_reordered(theirs, d) for d in built.values()):
        for dataset in all_datasets(cfg):
            if short_type(dataset) == FineGrainedImages.__name__:
                dataset.metainfo = dict(dataset.get('metainfo') or {}, classes=list(theirs))
        built = _build_datasets(cfg, splits)
        print(f'note: the classes of the data are put in the order of checkpoint {path!r}, by name')
    names = {split: _names(dataset) for split, dataset in built.items() if _names(dataset)}
    for split, ours in names.items():
        if theirs:
            owner, hint = f'checkpoint {path!r}', 'use the data it was trained on'
            check_same_classes(theirs, ours, owner, f'the {split} data', hint)
    first = next(iter(names), None)
    for split in names:
        check_same_classes(names[first], names[split], f'the {first} data', f'the {split} data')
    if first is not None and 'num_classes' in (cfg.model.get('head') or {}):
        demanded = (overrides or {}).get('model.head.num_classes')
        _set_num_classes(cfg, len(names[first]), demanded)
    return built


def _set_num_classes(cfg: Config, count: int, demanded: object) -> None:
    """Set the number of classes to that of the data, wherever the config has it.

    Raises:
        UserError: if the user demanded another one.
    """
    _limit_topk(cfg, count)
    if demanded is not None and demanded != count:
        raise UserError(f'model.head.num_classes={demanded}, but the data have {count} classes')
    head = cfg.model.head
    if head.num_classes != count:
        print(f'note: {count} classes, counted in the data (the config says {head.num_classes})')
        head.num_classes = count
        if 'data_preprocessor' in cfg and 'num_classes' in cfg.data_preprocessor:
            cfg.data_preprocessor.num_classes = count


def _limit_topk(cfg: Config, count: int) -> None:
    """Leave out accuracies among more classes than there are, as top-5 of three classes."""
    for split in SPLITS:
        evaluator = cfg.get(f'{split}_evaluator') or {}
        for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
            topk = metric.get('topk') if isinstance(metric, dict) else None
            if isinstance(topk, (list, tuple)) and any(k > count for k in topk):
                metric.topk = tuple(k for k in topk if k <= count) or (1,)
                print(f'note: {split}_evaluator.topk={metric.topk}: there are {count} classes')


def _build_datasets(cfg: Config, splits: tuple[str, ...]) -> dict[str, object]:
    built = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            with user_errors(f'{split} data'), _naming_expected_layout(loader.dataset):
                built[split] = DATASETS.build(loader.dataset)
                if len(built[split]) == 0:
                    raise UserError(f'the {split} data are empty')
    return built


def _names(dataset: object) -> tuple[str, ...]:
    """The names of a data set's classes; none if it has none."""
    return tuple((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())


def _reordered(theirs: Sequence[str], dataset: object) -> bool:
    ours = _names(dataset)
    return tuple(theirs) != ours and set(theirs) == set(ours)


@contextmanager
def _naming_expected_layout(dataset: ConfigDict) -> Iterator[None]:
    """Say how a folder should look where MMPretrain only says that it cannot read it."""
    layout = ZOO_LAYOUTS.get(short_type(dataset))
    try:
        yield
    except OSError as error:
        if layout is None:
            raise
        raise UserError(
            f'{one_line_with_hint(error)}; data root {dataset.get("data_root")!r} should hold '
            f'{layout}: pass --data-root'
        ) from error


def check_images(cfg: Config, built: dict[str, object]) -> None:
    """Decode every image file of the data once, so that all broken ones are named before the work.

    What the data sets have to say of their folders is printed first. Images that another loader
    than `LoadImage` reads are not checked. A last note is of equal files in two splits.

    Args:
        cfg: the config.
        built: its data sets by split.

    Raises:
        UserError: naming the broken files.
    """
    notes = (note for dataset in built.values() for note in getattr(dataset, 'notes', ()))
    for note in dict.fromkeys(notes):  # one of the whole folder is of each split
        print(f'note: {note}')
    data = []
    for split, dataset in built.items():
        leaves = innermost_datasets(cfg[f'{split}_dataloader'].dataset)
        loaders = {short_type(step) for leaf in leaves for step in leaf.get('pipeline') or ()}
        if LoadImage.__name__ in loaders and hasattr(dataset, 'get_data_info'):
            data.append(dataset)
    if data:
        with progress_bar('reading images') as progress:
            check_readable(*data, progress=progress)
    sets = same_files([list(image_paths(dataset)) for dataset in data])
    if sets:
        example = ' = '.join(map(printable, sets[0][:2]))
        print(
            f'note: equal files in several splits: {len(sets)} sets, as {example}: results on them '
            'are too good; fgplugins check_data names all'
        )
