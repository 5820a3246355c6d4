"""Data sets as their authors publish them: a reader for each.

A reader takes a folder and 'train' or 'test'. It gives the split, or None if the folder does not
hold its data set.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from fgplugins.data.images import printable, walk
from fgplugins.data.splits import Split, shuffled
from fgplugins.data.text_files import read_lines
from fgplugins.errors import UserError

__all__ = ['read_aircraft', 'read_caltech256', 'read_cars', 'read_cifar', 'read_cub', 'read_svhn']

CALTECH_TEST = 25  # test images a category: Griffin et al., Caltech-256 Object Category Dataset


def read_cub(root: Path, split: str) -> Split | None:
    """CUB-200-2011 (1 = train), or its 100-species subset (commas, from zero, 1 = test)."""
    lists = ('images.txt', 'image_class_labels.txt', 'train_test_split.txt')
    if not all((root / name).is_file() for name in lists):
        return None

    def table(name: str) -> tuple[dict[int, str], bool]:
        rows, commas = {}, False
        for number, line in enumerate(read_lines(root / name), 1):
            commas = commas or ', ' in line
            parts = line.split(', ' if ', ' in line else None, 1)
            if len(parts) != 2 or not parts[0].isdecimal():
                raise UserError(f'{root / name}, line {number}: {line!r} is not "<id> <value>"')
            rows[int(parts[0])] = parts[1].strip()
        return rows, commas

    paths, subset = table('images.txt')
    labels, _ = table('image_class_labels.txt')
    flags, _ = table('train_test_split.txt')
    wrong = next((key for key, label in labels.items() if not label.isdecimal()), None)
    if wrong is not None:
        raise UserError(f'{root / lists[1]}: label {labels[wrong]!r} of image {wrong} is no number')
    wanted = '1' if (split == 'train') != subset else '0'
    if (root / 'classes.txt').is_file():
        names = table('classes.txt')[0]
    else:
        names = {int(label): label for label in labels.values()}
    wrong = next((key for key, label in labels.items() if int(label) not in names), None)
    if wrong is not None:
        raise UserError(f'{root / "classes.txt"} lacks class {labels[wrong]} of image {wrong}')
    order = {key: position for position, key in enumerate(sorted(names))}
    chosen = [key for key in sorted(paths) if flags.get(key) == wanted and key in labels]
    images = [str(root / 'images' / paths[key]) for key in chosen]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(f'{root / "images.txt"} names {printable(missing)}, which is not there')
    left = [key for key in paths if flags.get(key) not in ('0', '1') or key not in labels]
    notes = [f'images without label or split: {len(left)}, as number {left[0]}'] if left else []
    return Split(
        [names[key] for key in sorted(names)],
        images,
        [order[int(labels[key])] for key in chosen],
        notes,
    )


def read_cifar(root: Path, split: str) -> Split | None:
    """CIFAR-10 or CIFAR-100, the version for Python."""
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
        # NotImplementedError is of files of version 7.3, which SciPy does not read
        raise UserError(f'{path} is not a MATLAB file that can be read: {error}') from None


def read_svhn(root: Path, split: str) -> Split | None:
    """The cropped digits of SVHN."""
    path = root / f'{split}_32x32.mat'
    if not path.is_file():
        return None
    content = _load_mat(path)
    images = np.ascontiguousarray(content['X'].transpose(3, 0, 1, 2))
    labels = [int(y) % 10 for y in content['y']]  # the digit 0 is stored as 10
    return Split([str(digit) for digit in range(10)], images, labels)


def read_cars(root: Path, split: str) -> Split | None:
    """Stanford Cars."""
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


def read_aircraft(root: Path, split: str) -> Split | None:
    """FGVC-Aircraft, by variants."""
    folder = root / 'data' if (root / 'data').is_dir() else root
    lists = {'train': 'images_variant_trainval.txt', 'test': 'images_variant_test.txt'}
    if not all((folder / name).is_file() for name in lists.values()):
        return None

    def read(name: str) -> list[list[str]]:
        rows = [line.split(None, 1) for line in read_lines(folder / name)]
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
        raise UserError(f'{folder / lists[split]} names {printable(missing)}, which is not there')
    return Split(classes, images, [order[variant] for _, variant in rows])


def read_caltech256(root: Path, split: str, seed: int) -> Split | None:
    """Caltech-256; the seed draws the test images of each category."""
    inner = root / '256_ObjectCategories'
    if not inner.is_dir():
        # the images of other data sets have folders with numbers too: look for the first of these
        if root.name != inner.name and not (root / '001.ak47').is_dir():
            return None
        inner = root
    folders = (f.name for f in inner.iterdir() if f.is_dir())
    # ICASC, section 4.1, removes the last category, which is clutter
    names = sorted(f for f in folders if re.fullmatch(r'\d{3}\..+', f) and f != '257.clutter')
    if not names:
        raise UserError(f'{inner} has no category folders, as 001.ak47')
    images, labels = [], []
    for label, name in enumerate(names):
        files = [inner / name / image for image in next(walk(inner / name)).images]
        if len(files) <= CALTECH_TEST:
            raise UserError(
                f'category {inner / name} has {len(files)} images: {CALTECH_TEST} are for testing, '
                'so it needs more; unpack the archive again'
            )
        files = shuffled(files, seed, label)
        chosen = files[CALTECH_TEST:] if split == 'train' else files[:CALTECH_TEST]
        images += sorted(str(f) for f in chosen)
        labels += [label] * len(chosen)
    return Split([name.split('.', 1)[1] for name in names], images, labels)


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
