"""Cluttered translated digits: the data of WARN's ablation study, from real handwritten digits.

The recipe is deepmind's mnist-cluttered (https://github.com/deepmind/mnist-cluttered), as used by
Rodriguez et al., *Attend and Rectify*, ECCV 2018, section 4.1: on a black canvas, D random 8 x 8
patches of random digits of the same split are added at random places and clipped at 1, then one
whole digit is added at a random place and clipped.

Digits come from MNIST idx files where a folder of them is given, else from scikit-learn's
``load_digits`` (1,797 scans of 8 x 8 pixels, part of the package). Those are enlarged to the 20
pixels that MNIST's digits have and centred in MNIST's 28 x 28 box. Training, validation and test
images are built from disjoint digits in both cases.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from fgplugins.errors import UserError

__all__ = ['clutter', 'cluttered_digits', 'source_digits']

# of the 1,797 digits in scikit-learn
TEST_DIGITS, VAL_DIGITS = 500, 200
# of MNIST's 60,000 for training
MNIST_VAL_DIGITS = 10000
SPLITS = ('train', 'val', 'test')
PATCH = 8
FEW = 10000  # images at a time, so that the memory is that of the images themselves


def _read_idx(folder: Path, stem: str) -> np.ndarray:
    """An MNIST idx file, plain or gzipped, as an array of its own shape."""
    for name in (
        stem,
        f'{stem}.gz',
        stem.replace('-idx', '.idx'),
        f'{stem.replace("-idx", ".idx")}.gz',
    ):
        path = folder / name
        if path.is_file():
            break
    else:
        raise UserError(f'no {stem}[.gz] in {folder}: put the four MNIST idx files there')
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
    except (OSError, EOFError) as error:
        raise UserError(f'{path} is damaged: {error}') from None
    dimensions = raw[3] if len(raw) > 4 else 0
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], 'big') for i in range(dimensions)]
    if raw[:3] != b'\x00\x00\x08' or len(raw) != 4 + 4 * dimensions + int(np.prod(shape)):
        raise UserError(f'{path} is not an idx file of bytes, or it is cut short')
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


@functools.lru_cache(maxsize=4)
def source_digits(split: str, data_root: str = '') -> tuple[np.ndarray, np.ndarray]:
    """The digits that images are built from.

    Args:
        split: 'train' | 'val' | 'test'.
        data_root: folder of MNIST idx files; scikit-learn's digits if empty.

    Returns:
        Images (n, 28, 28) float32 in [0, 1] and labels (n,) int64.
    """
    if split not in SPLITS:
        raise UserError(f"split={split!r}: must be 'train', 'val' or 'test'")
    if data_root:
        folder = Path(data_root)
        if not folder.is_dir():
            raise UserError(
                f'data root {data_root!r} is not a folder: give one with the four MNIST idx files, '
                'or leave it out to use the digits that scikit-learn ships'
            )
        stem = 't10k' if split == 'test' else 'train'
        images = _read_idx(folder, f'{stem}-images-idx3-ubyte')
        labels = _read_idx(folder, f'{stem}-labels-idx1-ubyte')
        if len(images) != len(labels):
            raise UserError(f'{folder}: {len(images)} {stem} images but {len(labels)} labels')
        if split != 'test':
            chosen = _chosen(len(images), split, 0, MNIST_VAL_DIGITS)
            images, labels = images[chosen], labels[chosen]
        return images.astype(np.float32) / 255, labels.astype(np.int64)

    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    chosen = _chosen(len(images), split, TEST_DIGITS, VAL_DIGITS)
    small = torch.from_numpy(images[chosen].reshape(-1, 1, 8, 8) / 16)
    large = F.interpolate(small, size=(20, 20), mode='bilinear', align_corners=False)
    return F.pad(large, (4, 4, 4, 4))[:, 0].float().numpy(), labels[chosen].astype(np.int64)


def _chosen(count: int, split: str, for_testing: int, for_validation: int) -> np.ndarray:
    """Which of ``count`` digits a split has: one choice for everybody.

    Validation gets no more than half of those that are not for testing.
    """
    order = np.random.default_rng(0).permutation(count)
    first_test = count - for_testing
    first_val = first_test - min(for_validation, first_test // 2)
    if split == 'test':
        return order[first_test:]
    return order[first_val:first_test] if split == 'val' else order[:first_val]


def clutter(
    digits: np.ndarray,
    labels: np.ndarray,
    num_images: int,
    distractors: int = 8,
    canvas: int = 40,
    seed: int | tuple[int, ...] = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Place one digit and ``distractors`` patches of others on each of ``num_images`` canvases.

    Every digit is used once before any is used again.

    Args:
        digits: (n, side, side) in [0, 1].
        labels: (n,).
        num_images: how many images to make.
        distractors: D, patches of 8 x 8 pixels an image.
        canvas: side of the images in pixels.
        seed: same seed, same images.

    Returns:
        Images (num_images, canvas, canvas) uint8 and labels (num_images,).
    """
    n, side, _ = digits.shape
    if canvas < side:
        raise UserError(f'canvas={canvas}: must be at least the {side} pixels of a digit')
    if num_images < 1 or distractors < 0:
        raise UserError(f'num_images={num_images}, distractors={distractors}: too few')
    rng = np.random.default_rng(seed)
    which = np.arange(num_images)[:, None, None]

    def place(source: Callable[[slice], np.ndarray], size: int) -> None:
        y = rng.integers(0, canvas - size + 1, (num_images, 1, 1)) + np.arange(size)[:, None]
        x = rng.integers(0, canvas - size + 1, (num_images, 1, 1)) + np.arange(size)
        for start in range(0, num_images, FEW):
            few = slice(start, start + FEW)
            images[which[few], y[few], x[few]] += source(few)

    images = np.zeros((num_images, canvas, canvas), np.float32)
    for _ in range(distractors):
        other = rng.integers(0, n, (num_images, 1, 1))
        y = rng.integers(0, side - PATCH + 1, (num_images, 1, 1)) + np.arange(PATCH)[:, None]
        x = rng.integers(0, side - PATCH + 1, (num_images, 1, 1)) + np.arange(PATCH)
        place(lambda few, at=(other, y, x): digits[tuple(i[few] for i in at)], PATCH)
    np.minimum(images, 1, out=images)

    rounds = -(-num_images // n)
    chosen = np.concatenate([rng.permutation(n) for _ in range(rounds)])[:num_images]
    place(lambda few: digits[chosen[few]], side)
    np.clip(images, 0, 1, out=images)
    images *= 255
    return np.rint(images, out=images).astype(np.uint8), labels[chosen]


@functools.lru_cache(maxsize=4)
def cluttered_digits(
    split: str,
    num_images: int,
    distractors: int = 8,
    canvas: int = 40,
    seed: int = 0,
    data_root: str = '',
) -> tuple[np.ndarray, np.ndarray]:
    """`clutter` on `source_digits`; the splits of a seed differ in digits and places."""
    digits, labels = source_digits(split, data_root)
    places = {'train': 2 * seed, 'test': 2 * seed + 1, 'val': (2 * seed, 1)}[split]
    return clutter(digits, labels, num_images, distractors, canvas, places)
