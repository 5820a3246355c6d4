"""Folders of labelled images, read in whichever of the usual layouts they come in.

``read_split(root, 'train')`` knows
  * one folder per class: ``train/<class>/*.jpg`` and ``test/`` (or ``val/``, ``valid/``), in upper
    or lower case; classes in folders of folders are named by their path, as 'ducks/mallard';
  * CUB-200-2011 as published: ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt``
    (1 = train) and ``images/``; also the 100-species subset of it that separates by commas, counts
    from zero and flags its test images by 1;
  * CIFAR-10 and CIFAR-100 as published for Python;
  * SVHN's cropped digits as published: ``train_32x32.mat`` and ``test_32x32.mat``;
  * Stanford Cars as published: ``cars_annos.mat`` and ``car_ims/``;
  * FGVC-Aircraft as published: ``data/images_variant_trainval.txt`` and ``data/images/``;
  * Caltech-256 as published: ``256_ObjectCategories/001.ak47/*.jpg`` and so on. It has no official
    split: 25 random images a category are for testing, the others for training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fgplugins.data.class_folders import TRAIN_FOLDERS, read_class_folders, split_folder
from fgplugins.data.classes import in_order_of
from fgplugins.data.images import check_decodable, is_clutter, is_image, printable
from fgplugins.data.published import (
    read_aircraft,
    read_caltech256,
    read_cars,
    read_cifar,
    read_cub,
    read_svhn,
)
from fgplugins.data.splits import Split, choose_per_class
from fgplugins.errors import UserError

__all__ = ['LAYOUTS', 'read_split']

LAYOUTS = (
    'train/<class>/*.jpg and test/<class>/*.jpg (or val/), or CUB-200-2011 (images.txt, '
    'image_class_labels.txt, train_test_split.txt, images/), CIFAR for Python (data_batch_1 ... or '
    'train and test), SVHN (train_32x32.mat, test_32x32.mat), Stanford Cars (cars_annos.mat, '
    'car_ims/), FGVC-Aircraft (data/images_variant_trainval.txt, data/images/) or Caltech-256 '
    '(256_ObjectCategories/001.ak47/*.jpg ...)'
)
READERS: tuple[Callable[[Path, str], Split | None], ...] = (
    read_cub,
    read_cars,
    read_aircraft,
    read_svhn,
    read_cifar,
    read_class_folders,
)


def read_split(
    root: str,
    split: str,
    train_per_class: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Split:
    """The images and labels of one split, from whichever layout the folder has.

    Args:
        root: the data folder.
        split: 'train' | 'test' | 'val'. Among class folders, 'test' is ``test/``, or ``val/`` if
            there is no ``test/``; 'val' is ``val/`` and nothing else. Other layouts have no 'val'.
        train_per_class: how many random training images of each class to take, or all where there
            are fewer; None for all.
        seed: of that choice, and of the split of a data set that has no official one. The smaller
            choice is part of the larger one, and the test images are the same for all.
        classes: names of the classes in the order of their labels; None for the layout's own
            order. They may name more classes than there are.

    Raises:
        UserError: if the folder is absent, empty or in no layout known here, or names what is not
            there; or holds images of formats that cannot be decoded; or ``train_per_class`` is not
            positive, or ``classes`` lacks one.
    """
    folder = Path(root).expanduser()
    if split not in ('train', 'test', 'val'):
        raise UserError(f"split={split!r}: must be 'train', 'test' or 'val'")
    if train_per_class is not None and (type(train_per_class) is not int or train_per_class < 1):
        raise UserError(
            f'train_per_class={train_per_class!r}: must be 1 or more, a whole number, or None'
        )
    if not folder.is_dir():
        raise UserError(
            f'data root {root!r} is not a folder: pass --data-root; it may hold {LAYOUTS}'
        )
    readers = (*READERS, partial(read_caltech256, seed=seed))
    for read in readers if split != 'val' else (read_class_folders,):
        found = read(folder, split)
        if found is not None:
            break
    else:
        if split == 'val':
            raise UserError(f'data root {root!r} has no val/ beside a train/')
        raise UserError(f'data root {root!r} {_what_is_there(folder)}')
    if not len(found.images):
        raise UserError(f'data root {root!r} has no {split} images')
    if not isinstance(found.images, np.ndarray):
        check_decodable(found.images)
    if train_per_class and split == 'train':
        found = choose_per_class(found, train_per_class, seed)
    if classes is not None:
        found.classes, found.labels = in_order_of(classes, found.classes, found.labels)
    found.notes = _count_notes(found, split) + found.notes
    return found


def _count_notes(found: Split, split: str) -> list[str]:
    """How many images the classes have, and what is odd about it."""
    counts = [0] * len(found.classes)
    for label in found.labels:
        counts[label] += 1
    classes = 'class' if len(counts) == 1 else 'classes'
    least, most = min(counts), max(counts)
    spread = f'{least} each' if least == most else f'{least} to {most} each'
    notes = [f'{split}: {sum(counts)} images of {len(counts)} {classes}, {spread}']
    if len(counts) == 1:
        notes.append(f'{printable(found.classes[0])} is the only class')
    bare = [printable(name) for name, n in zip(found.classes, counts, strict=True) if not n]
    if bare:
        more = f' and {len(bare) - 3} more classes' if len(bare) > 3 else ''
        notes.append(f'no {split} images of {", ".join(bare[:3])}{more}')
    return notes


def _what_is_there(root: Path) -> str:
    """What a folder in no known layout holds instead, and what it should hold."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not is_clutter(f.name))
    inner = next((f for f in folders if split_folder(f, TRAIN_FOLDERS, [])), None)
    if inner:
        return f'has no train/, but {printable(inner.name)}/ in it does: pass {printable(inner)}'
    full = [printable(f.name) for f in folders if any(map(is_image, f.iterdir()))]
    should = 'it should hold train/<class>/*.jpg and test/<class>/*.jpg'
    if full:
        names = ', '.join(full[:3]) + (', ...' if len(full) > 3 else '')
        noun = 'folder' if len(full) == 1 else 'folders'
        return f'holds {len(full)} {noun} with images ({names}) but no train/ and test/: {should}'
    images = sum(map(is_image, root.iterdir()))
    if images:
        return f'holds {images} images but no class folders: {should}'
    inside = ', '.join(printable(name) for name in sorted(f.name for f in root.iterdir())[:5])
    return f'holds {inside or "nothing"}; it should hold {LAYOUTS}'
