"""Folders of labelled images, read in whichever of the usual layouts they come in.

``read_split(root, 'train')`` knows
  * a split file, ``split.json`` in the folder, or the file itself: see
    `fgplugins.data.split_files`;
  * one folder per class: ``train/<class>/*.jpg`` and ``test/`` (or ``val/``, ``valid/``), in upper
    or lower case; classes in folders of folders are named by their path, as 'ducks/mallard';
  * CUB-200-2011 as published: ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt``
    (1 = train), ``images/`` and perhaps ``bounding_boxes.txt``; also the 100-species subset of it
    that separates by commas, counts from zero and flags its test images by 1;
  * CIFAR-10 and CIFAR-100 as published for Python;
  * SVHN's cropped digits as published: ``train_32x32.mat``, ``test_32x32.mat`` and, with the option
    ``extra=True``, ``extra_32x32.mat``;
  * Stanford Cars as published: ``cars_annos.mat``, with boxes, and ``car_ims/``;
  * Stanford Dogs as published: ``train_list.mat``, ``test_list.mat``, ``Images/`` and perhaps
    ``Annotation/``, with boxes: see `fgplugins.data.stanford_dogs`;
  * FGVC-Aircraft as published: ``data/images_variant_trainval.txt``, ``data/images/`` and perhaps
    ``data/images_box.txt`` and a list of validation images, ``data/images_variant_val.txt``;
  * Adience as published: ``fold_0_data.txt`` and so on, ``aligned/`` or ``faces/``; options
    ``label='gender' | 'age'`` and ``fold=0 ... 4``: see `fgplugins.data.adience`;
  * UEC-Food-100 as published: ``category.txt``, ``1/bb_info.txt`` and so on, with boxes. It has no
    official split: see `fgplugins.data.uec_food`;
  * Caltech-256 as published: ``256_ObjectCategories/001.ak47/*.jpg`` and so on. It has no official
    split: 25 random images a category are for testing, the others for training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgplugins.data.adience import read_adience
from fgplugins.data.class_folders import (
    TRAIN_FOLDERS,
    class_folder_parts,
    read_class_folders,
    read_flat_folder,
    read_folder_val,
    split_folder,
)
from fgplugins.data.classes import in_order_of
from fgplugins.data.images import check_decodable, is_clutter, is_image, printable
from fgplugins.data.published import (
    read_aircraft,
    read_aircraft_val,
    read_caltech256,
    read_cars,
    read_cub,
)
from fgplugins.data.published_arrays import read_cifar, read_svhn
from fgplugins.data.split_files import (
    find_split_file,
    listed_parts,
    read_split_file,
    read_split_file_val,
)
from fgplugins.data.splits import Split, choose_per_class, cut, without
from fgplugins.data.stanford_dogs import read_dogs
from fgplugins.data.uec_food import read_food
from fgplugins.errors import UserError

__all__ = ['FLAT', 'LAYOUTS', 'SPLIT_FILE', 'read_parts', 'read_split']

LAYOUTS = (
    'train/<class>/*.jpg and test/<class>/*.jpg, or a folder of images for each class, which '
    'fgplugins split_data divides, or a split file (split.json), or as published (docs/data.md): '
    'CUB-200-2011, CIFAR for Python, SVHN, Stanford Cars, Stanford Dogs, FGVC-Aircraft, Adience, '
    'UEC-Food-100, Caltech-256'
)


FLAT = 'one folder per class, without a split'
SPLIT_FILE = 'a split file'


def _train_and_test(root: Path) -> list[str]:
    return ['train', 'test']


class Layout(NamedTuple):
    """A layout that is known here.

    Attributes:
        name: for messages.
        read: (folder, 'train' | 'test', **options) -> the split; None if the layout is another.
        options: names of the options that ``read`` takes.
        seeded: whether ``read`` takes ``seed`` too, for want of an official split.
        read_val: (folder, val_share) -> the layout's own validation images; None if it has none.
        parts: folder -> which of 'train', 'val' and 'test' lie apart in it.
    """

    name: str
    read: Callable[..., Split | None]
    options: tuple[str, ...] = ()
    seeded: bool = False
    read_val: Callable[[Path, float], Split | None] | None = None
    parts: Callable[[Path], list[str]] = _train_and_test


KNOWN = (
    Layout(SPLIT_FILE, read_split_file, read_val=read_split_file_val, parts=listed_parts),
    Layout('CUB-200-2011', read_cub),
    Layout('Stanford Cars', read_cars),
    Layout('Stanford Dogs', read_dogs),
    Layout('FGVC-Aircraft', read_aircraft, read_val=read_aircraft_val),
    Layout('Adience', read_adience, ('label', 'fold')),
    Layout('UEC-Food-100', read_food, seeded=True),
    Layout('SVHN', read_svhn, ('extra',)),
    Layout('CIFAR', read_cifar),
    Layout(
        'one folder per class',
        read_class_folders,
        read_val=read_folder_val,
        parts=class_folder_parts,
    ),
    Layout('Caltech-256', read_caltech256, seeded=True),
)


def read_split(
    root: str,
    split: str,
    train_per_class: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    val_share: float = 0,
    options: Mapping[str, object] | None = None,
) -> Split:
    """The images and labels of one split, from whichever layout the folder has.

    Args:
        root: the data folder, or a split file.
        split: 'train' | 'test' | 'val'. Among class folders, 'test' is ``test/``, or ``val/`` if
            there is no ``test/``.
        train_per_class: how many random training images of each class to take, or all where there
            are fewer; None for all. They are chosen among those that are not for validation.
        seed: of that choice, of the validation images, and of the split of a data set that has no
            official one. The smaller choice is part of the larger one, and the test images are the
            same for all.
        classes: names of the classes in the order of their labels; None for the layout's own
            order. They may name more classes than there are.
        val_share: share of each class's training images, rounded, that 'val' has and 'train' lacks;
            at least one image, unless the class has only one. Images that belong together stay
            together: all of one person or photo. Where the folder has validation images of its
            own, ``val/`` beside a ``test/`` or FGVC-Aircraft's list, 'val' is these and 'train'
            all others. With 0 'train' is whole, FGVC-Aircraft's its trainval.
        options: what only some layouts take, by name: see above.

    Raises:
        UserError: if the folder is absent, empty or in no layout known here, or names what is not
            there; or holds images of formats that cannot be decoded; or has no validation images;
            or ``train_per_class`` is not positive, ``val_share`` no share, ``classes`` lacks a
            class, or an option is not one of the layout's.
    """
    folder = Path(root).expanduser()
    if split not in ('train', 'test', 'val'):
        raise UserError(f"split={split!r}: must be 'train', 'test' or 'val'")
    if train_per_class is not None and (type(train_per_class) is not int or train_per_class < 1):
        raise UserError(
            f'train_per_class={train_per_class!r}: must be 1 or more, a whole number, or None'
        )
    if type(val_share) not in (int, float) or not 0 <= val_share < 1:
        raise UserError(f'val_share={val_share!r}: must be 0 or more and below 1, as 0.1')
    if not _is_root(folder):
        raise UserError(
            f'data root {root!r} is not a folder: pass --data-root; it may hold {LAYOUTS}'
        )
    layout, found = _read(folder, 'test' if split == 'test' else 'train', seed, options or {})
    if found is None:
        raise UserError(f'data root {root!r} {_what_is_there(folder)}')
    if split == 'val' or (split == 'train' and val_share):
        found = _validated(layout, found, folder, split, val_share, seed)
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


def read_parts(root: str, split_file: bool = True) -> tuple[str, dict[str, Split]]:
    """All that a folder holds, part by part, as it lies there.

    Class folders without ``train/`` are read too: all of them are one part, 'all'. Images are
    listed whether or not their format can be decoded.

    Args:
        root: the data folder, or a split file.
        split_file: whether to read by a split file where there is one.

    Returns:
        The layout's name, and the images by part: 'train', 'val', 'test', or 'all'.

    Raises:
        UserError: if the folder is absent, empty or in no layout known here.
    """
    folder = Path(root).expanduser()
    if not _is_root(folder):
        raise UserError(f'folder {root!r} is not there: it should hold {LAYOUTS}')
    if not split_file or find_split_file(folder) is None:
        known = [layout for layout in KNOWN if layout.name != SPLIT_FILE]
    else:
        known = [KNOWN[0]]
    layout, found = _read(folder, 'train', 0, {}, known)
    if found is not None:
        seed = {'seed': 0} if layout.seeded else {}
        others = [part for part in layout.parts(folder) if part != 'train']
        return layout.name, {
            'train': found, **{part: layout.read(folder, part, **seed) for part in others}
        }  # fmt: skip
    flat = None if _subfolder_with_train(folder) else read_flat_folder(folder)
    if flat is None:
        raise UserError(f'folder {root!r} {_what_is_there(folder)}')
    return FLAT, {'all': flat}


def _is_root(path: Path) -> bool:
    """Whether a path is a folder or a split file."""
    return path.is_dir() or (path.is_file() and find_split_file(path) is not None)


def _read(
    folder: Path,
    part: str,
    seed: int,
    options: Mapping[str, object],
    known: Sequence[Layout] = KNOWN,
) -> tuple[Layout, Split | None]:
    """A folder's layout, and its training or test images; None if no layout is known.

    Raises:
        UserError: if an option is not one of the layout's.
    """
    for layout in known:
        taken = {name: options[name] for name in layout.options if name in options}
        found = layout.read(folder, part, **taken, **({'seed': seed} if layout.seeded else {}))
        if found is not None:
            break
    else:
        return layout, None
    odd = next((name for name in options if name not in layout.options), None)
    if odd is not None:
        own = ', '.join(layout.options) or 'none'
        takers = [f'{other.name} takes it' for other in KNOWN if odd in other.options]
        raise UserError(
            f'options: {odd!r} is not an option of {layout.name}, as which {printable(folder)} is '
            f'laid out: its options: {own}{"; " if takers else ""}{"; ".join(takers)}'
        )
    return layout, found


def _validated(
    layout: Layout, whole: Split, folder: Path, split: str, share: float, seed: int
) -> Split:
    """What is for validation, or all training images but these.

    Raises:
        UserError: if there are no validation images.
    """
    own = layout.read_val(folder, share) if layout.read_val else None
    if own is None and not share:
        raise UserError(
            f'data root {str(folder)!r} has no validation images of its own: set val_share, as '
            'val_share=0.1, for a share of the training images, or, where classes are folders, add '
            'val/ beside train/ and test/'
        )
    if own is None:
        train, val = cut(whole, folder, share, seed)
        return train if split == 'train' else val
    part = without(whole, own) if split == 'train' else own
    if share:
        part.notes.append(
            f'{printable(folder)} has its own validation images: val_share={share} is not used'
        )
    elif len(without(whole, own).images) < len(whole.images):
        part.notes.append('they are among the training images, unless val_share is above 0 there')
    return part


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


def _subfolder_with_train(root: Path) -> Path | None:
    """The first folder in a folder that has ``train/``."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not is_clutter(f.name))
    return next((f for f in folders if split_folder(f, TRAIN_FOLDERS, [])), None)


def _what_is_there(root: Path) -> str:
    """What a folder in no known layout holds instead, and what it should hold."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not is_clutter(f.name))
    inner = _subfolder_with_train(root)
    if inner:
        return f'has no train/, but {printable(inner.name)}/ in it does: pass {printable(inner)}'
    full = [printable(f.name) for f in folders if any(map(is_image, f.iterdir()))]
    should = 'it should hold train/<class>/*.jpg and test/<class>/*.jpg'
    if full:
        names = ', '.join(full[:3]) + (', ...' if len(full) > 3 else '')
        noun = 'folder' if len(full) == 1 else 'folders'
        return (
            f'holds {len(full)} {noun} with images ({names}) but no train/ and test/: {should}; or '
            f'divide it as it is: fgplugins split_data {printable(root)} --val 0.2 --test 0.2'
        )
    images = sum(map(is_image, root.iterdir()))
    if images:
        return f'holds {images} images but no class folders: {should}'
    inside = ', '.join(printable(name) for name in sorted(f.name for f in root.iterdir())[:5])
    return f'holds {inside or "nothing"}; it should hold {LAYOUTS}'
