"""One split of a data set, and random choices that depend on nothing but a seed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

__all__ = ['Split', 'choose_per_class', 'shuffled']


@dataclass
class Split:
    """One split of a data set.

    Attributes:
        classes: their names, in the order of the labels.
        images: file paths, or an array (n, H, W, 3) of RGB bytes.
        labels: one class index an image.
        notes: what a user should know of the split, a line each.
    """

    classes: list[str]
    images: list[str] | np.ndarray
    labels: list[int]
    notes: list[str] = field(default_factory=list)


def shuffled(items: list, seed: int, label: int) -> list:
    """A class's items in a random order that depends on nothing but the seed and the label.

    NumPy's older generator is frozen, so the split is the same with every version of it.
    """
    order = np.random.RandomState([seed, label]).permutation(len(items))
    return [items[i] for i in order]


def choose_per_class(found: Split, count: int, seed: int) -> Split:
    """A random choice of ``count`` images of each class, or all where there are fewer."""
    of_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(found.labels):
        of_class[label].append(index)
    kept = sorted(i for y in of_class for i in shuffled(of_class[y], seed, y)[:count])
    images = found.images
    images = images[kept] if isinstance(images, np.ndarray) else [images[i] for i in kept]
    return Split(found.classes, images, [found.labels[i] for i in kept], found.notes)
