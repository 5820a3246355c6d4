"""UEC-Food-100 as published: dishes, several of which may be in one photo.

The folder holds ``category.txt`` and a folder of photos for each category, ``1`` to ``100``, with
a list of boxes in it, ``bb_info.txt``: one sample a row, to be cropped to its box. A photo of
several dishes has a copy in the folder of each, under the same number.

There is no official split: a fifth of each category's samples, drawn by a seed, is for testing.
All copies of a photo are in the same part. The corners of the boxes are taken as edges that count
from zero: the data set does not say. UEC-Food-256 has the same layout.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fgplugins.data.boxes import Box, outward, read_boxes
from fgplugins.data.images import printable
from fgplugins.data.splits import Split, held_out
from fgplugins.data.text_files import read_lines
from fgplugins.errors import UserError

__all__ = ['read_food']

TEST_SHARE = 0.2


def read_food(root: Path, split: str, seed: int) -> Split | None:
    """UEC-Food-100 or -256; the seed draws the test images of each category."""
    root = root / 'UECFOOD100' if (root / 'UECFOOD100').is_dir() else root
    if not (root / 'category.txt').is_file() or not (root / '1' / 'bb_info.txt').is_file():
        return None
    classes, images, labels, boxes, photos = [], [], [], [], []
    for label, (number, name) in enumerate(_categories(root / 'category.txt')):
        classes.append(name)
        folder = root / number
        for photo, box in _samples(folder / 'bb_info.txt'):
            images.append(str(folder / f'{photo}.jpg'))
            photos.append(photo)
            labels.append(label)
            boxes.append(box)
            if not Path(images[-1]).is_file():
                raise UserError(
                    f'{folder / "bb_info.txt"} names {printable(images[-1])}, which is not there'
                )
    tests, _ = held_out(photos, labels, TEST_SHARE, seed)
    whole = Split(classes, images, labels, boxes=boxes, groups=photos)
    found = whole.take([i for i in range(len(labels)) if (i in tests) == (split == 'test')])
    shared = sum(count for count in Counter(found.groups).values() if count > 1)
    if shared:
        found.notes.append(f'dishes beside others in a photo: {shared}; crop images to their boxes')
    return found


def _categories(path: Path) -> list[tuple[str, str]]:
    """The number and the name of each category."""
    rows = [line.split(None, 1) for line in read_lines(path)]
    for number, row in enumerate(rows, 1):
        # the first row may be of names: id, name
        if len(row) != 2 or not (row[0].isdecimal() or number == 1):
            raise UserError(f'{path}, line {number}: {" ".join(row)!r} is not "<id> <name>"')
    return sorted((tuple(row) for row in rows if row[0].isdecimal()), key=lambda row: int(row[0]))


def _samples(path: Path) -> list[tuple[str, Box]]:
    """The photo and the box of each sample of a category."""
    rows = read_boxes(path, 'img x1 y1 x2 y2', header=True)
    return [(photo, outward(*corners)) for photo, corners in rows]
