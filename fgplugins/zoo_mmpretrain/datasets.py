"""Data sets for MMPretrain configs: cluttered digits, and folders in any usual layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmpretrain.datasets import BaseDataset

from fgplugins.data.classes import in_order_of
from fgplugins.data.cluttered_digits import cluttered_digits
from fgplugins.data.layouts import read_split
from fgplugins.data.text_files import read_lines
from fgplugins.zoo_mmpretrain.registry import DATASETS, register

__all__ = ['ClutteredDigits', 'FineGrainedImages']


class FineGrainedImages(BaseDataset):
    """Labelled images of a folder, in whichever layout of `fgplugins.data.layouts` it has.

    Args:
        data_root: the folder.
        split: 'train' | 'test' | 'val': see `fgplugins.data.layouts.read_split`.
        train_per_class: how many random training images of each class to take; None for all.
        split_seed: of that choice, of the validation images, and of the split where a data set has
            no official one.
        classes: names of the classes, or a file with one a line, in the order of their labels;
            ``metainfo=dict(classes=...)`` does the same. None for the layout's own order. They may
            name more classes than there are images of.
        val_share: share of each class's training images that 'val' has and 'train' lacks, where the
            folder has no validation images of its own. Both need the same one, and the same seed.
        options: what only some layouts take: ``dict(extra=True)`` for SVHN's training images,
            ``dict(label='age', fold=0)`` for Adience.
        metainfo: MMPretrain's.
        **kwargs: MMPretrain's: ``pipeline``, ``test_mode``, ``indices``, ...

    Attributes:
        notes: what a user should know of the images found, a line each; empty before they are read.

    A record has ``gt_box`` (left, top, right, bottom) where the data set publishes boxes: see
    `fgplugins.zoo_mmpretrain.transforms.CropToBox`.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        train_per_class: int | None = None,
        split_seed: int = 0,
        classes: str | Sequence[str] | None = None,
        metainfo: Mapping | None = None,
        val_share: float = 0,
        options: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        self.choice = {
            'split': split,
            'train_per_class': train_per_class,
            'seed': split_seed,
            'val_share': val_share,
            'options': options,
        }
        self.notes: list[str] = []
        metainfo = dict(metainfo or {})
        if isinstance(metainfo.get('classes'), str):
            metainfo['classes'] = read_lines(metainfo['classes'])
        if isinstance(classes, str):
            classes = read_lines(classes)
        super().__init__(
            ann_file='', data_root=data_root, classes=classes, metainfo=metainfo, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        wanted = self._metainfo.get('classes')
        found = read_split(self.data_root, **self.choice, classes=wanted)
        self._metainfo['classes'] = tuple(found.classes)
        self.notes = found.notes
        key, images = 'img_path', found.images
        if isinstance(images, np.ndarray):
            key, images = 'img', np.ascontiguousarray(images[..., ::-1])  # MMPretrain works on BGR
        records = [
            {key: image, 'gt_label': label}
            for image, label in zip(images, found.labels, strict=True)
        ]
        if found.boxes is not None:
            for record, box in zip(records, found.boxes, strict=True):
                record['gt_box'] = box
        return records

    def _join_prefix(self) -> None:
        """Paths are whole already."""


class ClutteredDigits(BaseDataset):
    """Cluttered translated digits, made on the spot: see `fgplugins.data.cluttered_digits`.

    Args:
        split: 'train' | 'val' | 'test'.
        num_images: how many to make.
        distractors: D, patches of other digits an image.
        canvas: side in pixels.
        seed: same seed, same images.
        data_root: folder of MNIST idx files; scikit-learn's digits if empty.
        **kwargs: MMPretrain's: ``pipeline``, ``test_mode``, ``indices``, ...
    """

    METAINFO = {'classes': tuple('0123456789')}  # noqa: RUF012

    def __init__(
        self,
        split: str = 'train',
        num_images: int = 20000,
        distractors: int = 8,
        canvas: int = 40,
        seed: int = 0,
        data_root: str = '',
        **kwargs: object,
    ) -> None:
        self.recipe = (split, num_images, distractors, canvas, seed, data_root)
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        images, labels = cluttered_digits(*self.recipe)
        _, labels = in_order_of(self._metainfo['classes'], self.METAINFO['classes'], labels)
        return [
            {'img': image, 'gt_label': int(label)}
            for image, label in zip(images, labels, strict=True)
        ]

    def _join_prefix(self) -> None:
        """There are no paths."""


register(DATASETS, FineGrainedImages)
register(DATASETS, ClutteredDigits)
