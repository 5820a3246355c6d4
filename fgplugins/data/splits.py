"""One split of a data set, and random choices that depend on nothing but a seed."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fgplugins.data.boxes import Box
from fgplugins.data.classes import same_form

__all__ = ['Split', 'choose_per_class', 'cut', 'held_out', 'shuffled', 'without']

VALIDATION = 1  # after the seed and the label: keeps this choice apart from others of that seed


@dataclass
class Split:
    """One split of a data set.

    Attributes:
        classes: their names, in the order of the labels.
        images: file paths, or an array (n, H, W, 3) of RGB bytes.
        labels: one class index an image.
        notes: what a user should know of the split, a line each.
        boxes: one (left, top, right, bottom) an image, in pixels of the file as it is stored (EXIF
            does not turn boxes), right and bottom exclusive: ``image[top:bottom, left:right]``;
            None if the data set publishes none, or their file is absent.
        groups: one name an image: images of one group are never parted into training and
            validation; None if each image is alone.
    """

    classes: list[str]
    images: list[str] | np.ndarray
    labels: list[int]
    notes: list[str] = field(default_factory=list)
    boxes: list[Box] | None = None
    groups: list[str] | None = None

    def take(self, kept: Sequence[int]) -> Split:
        """The images at some positions, with all that belongs to them."""
        images = self.images
        return Split(
            self.classes,
            images[kept] if isinstance(images, np.ndarray) else [images[i] for i in kept],
            [self.labels[i] for i in kept],
            list(self.notes),
            None if self.boxes is None else [self.boxes[i] for i in kept],
            None if self.groups is None else [self.groups[i] for i in kept],
        )


def shuffled(items: list, *seeds: int) -> list:
    """Items in a random order that depends on nothing but whole numbers, as a seed and a label.

    NumPy's older generator is frozen, so the split is the same with every version of it.
    """
    order = np.random.RandomState(seeds).permutation(len(items))
    return [items[i] for i in order]


def choose_per_class(found: Split, count: int, seed: int) -> Split:
    """A random choice of ``count`` images of each class, or all where there are fewer."""
    of_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(found.labels):
        of_class[label].append(index)
    return found.take(sorted(i for y in of_class for i in shuffled(of_class[y], seed, y)[:count]))


def held_out(
    groups: Sequence[Hashable], labels: Sequence[int], share: float, *seeds: int
) -> tuple[set[int], list[int]]:
    """A random share of each class's images, whole groups only.

    A group with images of several classes counts for the rarest of these. Of each class, groups
    are taken until they hold the share of its images, rounded: at least one group, and never all.

    Args:
        groups: one an image; they can be sorted, and their order in the list does not matter.
        labels: one an image.
        share: between 0 and 1.
        *seeds: of the choice.

    Returns:
        The positions of the images taken, and the classes of which none could be: those with one
        group only.
    """
    sizes = Counter(labels)
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    of_class: dict[int, list[Hashable]] = {label: [] for label in sorted(sizes)}
    for group in sorted(members):
        of_class[min((sizes[labels[i]], labels[i]) for i in members[group])[1]].append(group)
    taken: set[int] = set()
    whole = []
    for label, own in of_class.items():
        wanted = max(1, round(share * sum(len(members[group]) for group in own)))
        count = 0
        if len(own) < 2:
            whole.append(label)
        for group in shuffled(own, *seeds, label)[:-1]:
            if count < wanted:
                taken.update(members[group])
                count += len(members[group])
    return taken, whole


def cut(found: Split, root: Path, share: float, seed: int) -> tuple[Split, Split]:
    """A training split in two: what is left to train on, and a share of it to validate on.

    The choice depends on the seed and the images' names below ``root`` only (of arrays, on their
    positions), not on their order. Both parts keep the order.
    """
    if isinstance(found.images, np.ndarray):
        names: list[Hashable] = list(range(len(found.images)))
    else:
        names = [same_form(Path(os.path.relpath(f, root)).as_posix()) for f in found.images]
    taken, whole = held_out(found.groups or names, found.labels, share, seed, VALIDATION)
    parts = [
        found.take([i for i in range(len(found.labels)) if (i in taken) == wanted])
        for wanted in (False, True)
    ]
    if whole:
        several = f' and {len(whole) - 1} more' if len(whole) > 1 else ''
        for part in parts:
            part.notes.append(
                f'too few images to validate on some: {found.classes[whole[0]]}{several}'
            )
    return parts[0], parts[1]


def without(found: Split, others: Split) -> Split:
    """A split of files without those that are in another split too."""
    there = set(others.images)
    return found.take([i for i, image in enumerate(found.images) if image not in there])
