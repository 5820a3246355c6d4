"""Folders of labelled images, read in whichever of the usual layouts they come in.

``read_split(root, 'train')`` knows
  * one folder per class: ``train/<class>/*.jpg`` and ``test/`` (or ``val/``, ``valid/``);
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

import pickle
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from fgplugins.errors import UserError

__all__ = ['LAYOUTS', 'Split', 'read_split']

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
TEST_FOLDERS = ('test', 'val', 'valid')
LAYOUTS = (
    'train/<class>/*.jpg and test/<class>/*.jpg (or val/), or CUB-200-2011 (images.txt, '
    'image_class_labels.txt, train_test_split.txt, images/), CIFAR for Python (data_batch_1 ... or '
    'train and test), SVHN (train_32x32.mat, test_32x32.mat), Stanford Cars (cars_annos.mat, '
    'car_ims/), FGVC-Aircraft (data/images_variant_trainval.txt, data/images/) or Caltech-256 '
    '(256_ObjectCategories/001.ak47/*.jpg ...)'
)
CALTECH_TEST = 25  # test images a category: Griffin et al., Caltech-256 Object Category Dataset


@dataclass
class Split:
    """One split of a data set.

    Attributes:
        classes: their names, in the order of the labels.
        images: file paths, or an array (n, H, W, 3) of RGB bytes.
        labels: one class index an image.
    """

    classes: list[str]
    images: list[str] | np.ndarray
    labels: list[int]


def _folders(root: Path, split: str) -> Split | None:
    train = root / 'train'
    if not train.is_dir():
        return None
    classes = sorted(f.name for f in train.iterdir() if f.is_dir())
    if not classes:
        return None
    folder = train
    if split == 'test':
        found = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
        if not found:
            raise UserError(f'{root} has train/ but none of {", ".join(TEST_FOLDERS)}/ beside it')
        folder = found[0]
        unknown = sorted({f.name for f in folder.iterdir() if f.is_dir()} - set(classes))
        if unknown:
            raise UserError(f'class {unknown[0]!r} in {folder} is not in {train}')
    images, labels = [], []
    for label, name in enumerate(classes):
        files = sorted((folder / name).rglob('*')) if (folder / name).is_dir() else []
        files = [str(f) for f in files if f.suffix.lower() in IMAGES]
        if split == 'train' and not files:
            raise UserError(f'class folder {folder / name} has no images ({", ".join(IMAGES)})')
        images += files
        labels += [label] * len(files)
    return Split(classes, images, labels)


def _cub(root: Path, split: str) -> Split | None:
    lists = ('images.txt', 'image_class_labels.txt', 'train_test_split.txt')
    if not all((root / name).is_file() for name in lists):
        return None

    def table(name: str) -> tuple[dict[int, str], bool]:
        rows, commas = {}, False
        for number, line in enumerate((root / name).read_text().splitlines(), 1):
            if line.strip():
                commas = commas or ', ' in line
                parts = line.split(', ' if ', ' in line else ' ', 1)
                if len(parts) != 2 or not parts[0].isdigit():
                    raise UserError(f'{root / name}, line {number}: {line!r} is not "<id> <value>"')
                rows[int(parts[0])] = parts[1].strip()
        return rows, commas

    paths, subset = table('images.txt')
    labels, _ = table('image_class_labels.txt')
    flags, _ = table('train_test_split.txt')
    wanted = '1' if (split == 'train') != subset else '0'
    if (root / 'classes.txt').is_file():
        names = table('classes.txt')[0]
    else:
        names = {int(label): label for label in labels.values()}
    order = {key: position for position, key in enumerate(sorted(names))}
    chosen = [key for key in sorted(paths) if flags.get(key) == wanted and key in labels]
    images = [str(root / 'images' / paths[key]) for key in chosen]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(f'{root / "images.txt"} names {missing}, which is not there')
    return Split(
        [names[key] for key in sorted(names)], images, [order[int(labels[key])] for key in chosen]
    )


def _cifar(root: Path, split: str) -> Split | None:
    folders = (root, root / 'cifar-10-batches-py', root / 'cifar-100-python')
    for folder in folders:
        if (folder / 'data_batch_1').is_file():
            files = [f'data_batch_{i}' for i in range(1, 6)] if split == 'train' else ['test_batch']
            meta, names, labels_key = 'batches.meta', 'label_names', 'labels'
        elif (folder / 'train').is_file() and (folder / 'test').is_file():
            files, meta, names, labels_key = [split], 'meta', 'fine_label_names', 'fine_labels'
        else:
            continue
        images, labels = [], []
        for name in files:
            batch = _unpickle(folder / name)
            images.append(np.asarray(batch['data'], np.uint8).reshape(-1, 3, 32, 32))
            labels += [int(y) for y in batch[labels_key]]
        classes = list(_unpickle(folder / meta)[names])
        return Split(classes, np.concatenate(images).transpose(0, 2, 3, 1), labels)
    return None


def _load_mat(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(str(path), squeeze_me=True)
    except (MatReadError, OSError, ValueError, NotImplementedError, TypeError) as error:
        raise UserError(f'{path} is not a MATLAB file that can be read: {error}') from None


def _svhn(root: Path, split: str) -> Split | None:
    path = root / f'{split}_32x32.mat'
    if not path.is_file():
        return None
    content = _load_mat(path)
    images = np.ascontiguousarray(content['X'].transpose(3, 0, 1, 2))
    labels = [int(y) % 10 for y in content['y']]  # the digit 0 is stored as 10
    return Split([str(digit) for digit in range(10)], images, labels)


def _cars(root: Path, split: str) -> Split | None:
    path = root / 'cars_annos.mat'
    if not path.is_file():
        return None
    content = _load_mat(path)
    rows = [a for a in content['annotations'] if bool(a['test']) == (split == 'test')]
    images = [str(root / str(a['relative_im_path'])) for a in rows]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(f'{path} names {missing}, which is not there')
    names = [str(name) for name in content['class_names']]
    return Split(names, images, [int(a['class']) - 1 for a in rows])


def _aircraft(root: Path, split: str) -> Split | None:
    folder = root / 'data' if (root / 'data').is_dir() else root
    lists = {'train': 'images_variant_trainval.txt', 'test': 'images_variant_test.txt'}
    if not all((folder / name).is_file() for name in lists.values()):
        return None

    def read(name: str) -> list[list[str]]:
        rows = [line.split(' ', 1) for line in (folder / name).read_text().splitlines() if line]
        wrong = next((row for row in rows if len(row) != 2), None)
        if wrong:
            raise UserError(f'{folder / name}: {wrong[0]!r} is not "<image> <variant>"')
        return rows

    classes = sorted({variant for _, variant in read(lists['train'])})
    order = {name: i for i, name in enumerate(classes)}
    rows = read(lists[split])
    unknown = next((variant for _, variant in rows if variant not in order), None)
    if unknown:
        raise UserError(f'class {unknown!r} in {lists[split]} is not in {lists["train"]}')
    images = [str(folder / 'images' / f'{name}.jpg') for name, _ in rows]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(f'{folder / lists[split]} names {missing}, which is not there')
    return Split(classes, images, [order[variant] for _, variant in rows])


def _shuffled(items: list, seed: int, label: int) -> list:
    """A class's items in a random order that depends on nothing but the seed and the label.

    NumPy's older generator is frozen, so the split is the same with every version of it.
    """
    order = np.random.RandomState([seed, label]).permutation(len(items))
    return [items[i] for i in order]


def _caltech256(root: Path, split: str, seed: int) -> Split | None:
    inner = root / '256_ObjectCategories'
    if not inner.is_dir():
        # the images of other data sets have folders with numbers too: look for the first of these
        if root.name != inner.name and not (root / '001.ak47').is_dir():
            return None
        inner = root
    folders = (f.name for f in inner.iterdir() if f.is_dir())
    # ICASC, section 4.1, removes the last category, which holds no one thing
    names = sorted(f for f in folders if re.fullmatch(r'\d{3}\..+', f) and f != '257.clutter')
    if not names:
        raise UserError(f'{inner} has no category folders, as 001.ak47')
    images, labels = [], []
    for label, name in enumerate(names):
        files = (f for f in (inner / name).iterdir() if f.suffix.lower() in IMAGES)
        files = sorted(files, key=lambda f: f.name)
        if len(files) <= CALTECH_TEST:
            raise UserError(
                f'category {inner / name} has {len(files)} images: {CALTECH_TEST} are for testing, '
                'so it needs more; unpack the archive again'
            )
        files = _shuffled(files, seed, label)
        chosen = files[CALTECH_TEST:] if split == 'train' else files[:CALTECH_TEST]
        images += sorted(str(f) for f in chosen)
        labels += [label] * len(chosen)
    return Split([name.split('.', 1)[1] for name in names], images, labels)


def _at_most(found: Split, count: int, seed: int) -> Split:
    """A random choice of ``count`` images of each class, or all where there are fewer."""
    of_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(found.labels):
        of_class[label].append(index)
    kept = sorted(i for y in of_class for i in _shuffled(of_class[y], seed, y)[:count])
    images = found.images
    images = images[kept] if isinstance(images, np.ndarray) else [images[i] for i in kept]
    return Split(found.classes, images, [found.labels[i] for i in kept])


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR's pickles, and nothing that could run code."""

    ALLOWED: ClassVar[set[tuple[str, str]]] = {
        ('numpy.core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', '_reconstruct'),
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('_codecs', 'encode'),
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return super().find_class(module, name)


def _unpickle(path: Path) -> dict[str, object]:
    try:
        with path.open('rb') as file:
            return _ArraysOnly(file, encoding='latin1').load()
    except (OSError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise UserError(f'{path} is not a CIFAR file: {error}') from None


_READERS: tuple[Callable[[Path, str], Split | None], ...] = (
    _cub,
    _cars,
    _aircraft,
    _svhn,
    _cifar,
    _folders,
)


def read_split(root: str, split: str, train_per_class: int | None = None, seed: int = 0) -> Split:
    """The images and labels of one split, from whichever layout the folder has.

    Args:
        root: the data folder.
        split: 'train' | 'test'.
        train_per_class: how many random training images of each class to take, or all where there
            are fewer; None for all.
        seed: of that choice, and of the split of a data set that has no official one. The smaller
            choice is part of the larger one, and the test images are the same for all.

    Raises:
        UserError: if the folder is absent, empty or in no layout known here, or names what is not
            there; or ``train_per_class`` is not positive.
    """
    folder = Path(root).expanduser()
    if split not in ('train', 'test'):
        raise UserError(f"split={split!r}: must be 'train' or 'test'")
    if train_per_class is not None and train_per_class < 1:
        raise UserError(f'train_per_class={train_per_class}: must be 1 or more, or None for all')
    if not folder.is_dir():
        raise UserError(
            f'data root {root!r} is not a folder: pass --data-root; it may hold {LAYOUTS}'
        )
    for reader in (*_READERS, partial(_caltech256, seed=seed)):
        found = reader(folder, split)
        if found is not None:
            if not len(found.images):
                raise UserError(f'data root {root!r} has no {split} images')
            if train_per_class and split == 'train':
                found = _at_most(found, train_per_class, seed)
            return found
    inside = ', '.join(sorted(f.name for f in folder.iterdir())[:5]) or 'nothing'
    raise UserError(f'data root {root!r} holds {inside}; it should hold {LAYOUTS}')
