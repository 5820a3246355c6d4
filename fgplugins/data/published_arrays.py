"""Data sets of small images as their authors publish them, in arrays: a reader for each.

A reader takes a folder and 'train' or 'test'. It gives the split, or None if the folder does not
hold its data set.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import ClassVar

import numpy as np

from fgplugins.data.matlab import load_mat
from fgplugins.data.splits import Split
from fgplugins.errors import UserError

__all__ = ['read_cifar', 'read_svhn']


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


def read_svhn(root: Path, split: str, extra: bool = False) -> Split | None:
    """The cropped digits of SVHN; with ``extra``, training has those of ``extra_32x32.mat`` too."""
    path = root / f'{split}_32x32.mat'
    if not path.is_file():
        return None
    if type(extra) is not bool:
        raise UserError(f'extra={extra!r}: must be True or False')
    paths = [path]
    if extra:
        if split != 'train':
            raise UserError(f'extra=True adds to the training images: leave it out for {split!r}')
        paths.append(root / 'extra_32x32.mat')
        if not paths[1].is_file():
            raise UserError(f'extra=True needs {paths[1]}, which is not there')
    parts, labels = [], []
    for one in paths:
        content = load_mat(one)
        parts.append(content['X'].transpose(3, 0, 1, 2))
        labels += [int(y) % 10 for y in content['y']]  # the digit 0 is stored as 10
    images = np.empty((len(labels), *parts[0].shape[1:]), np.uint8)
    np.concatenate(parts, out=images)
    return Split([str(digit) for digit in range(10)], images, labels)


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
