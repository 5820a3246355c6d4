"""Data sets of image files as their authors publish them: a reader for each.

A reader takes a folder and 'train' or 'test'. It gives the split, with boxes where they are
published and there, or None if the folder does not hold its data set.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fgplugins.data.boxes import Box, boxes_of, outward, read_boxes
from fgplugins.data.images import printable, walk
from fgplugins.data.matlab import load_mat
from fgplugins.data.splits import Split, shuffled
from fgplugins.data.text_files import read_lines
from fgplugins.errors import UserError

__all__ = ['read_aircraft', 'read_aircraft_val', 'read_caltech256', 'read_cars', 'read_cub']

CALTECH_TEST = 25  # test images a category: Griffin et al., Caltech-256 Object Category Dataset


def read_cub(root: Path, split: str) -> Split | None:
    """CUB-200-2011 (1 = train), or its 100-species subset (commas, from zero, 1 = test).

    ``bounding_boxes.txt`` gives x, y, width and height, from zero and with fractions: a box is
    widened to whole pixels.
    """
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
        _cub_boxes(root / 'bounding_boxes.txt', chosen),
    )


def _cub_boxes(path: Path, chosen: list[int]) -> list[Box] | None:
    if not path.is_file():
        return None
    rows = read_boxes(path, '<id> <x> <y> <width> <height>')
    boxes = {key: outward(x, y, x + width, y + height) for key, (x, y, width, height) in rows}
    return boxes_of(list(map(str, chosen)), boxes, path)


def read_cars(root: Path, split: str) -> Split | None:
    """Stanford Cars; its boxes count from one, with their last column and row."""
    path = root / 'cars_annos.mat'
    if not path.is_file():
        return None
    content = load_mat(path)
    rows = [
        a for a in np.atleast_1d(content['annotations']) if bool(a['test']) == (split == 'test')
    ]
    images = [str(root / str(a['relative_im_path'])) for a in rows]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(f'{path} names {missing}, which is not there')
    names = [str(name) for name in np.atleast_1d(content['class_names'])]
    boxes = _cars_boxes(path, rows)
    return Split(names, images, [int(a['class']) - 1 for a in rows], boxes=boxes)


def _cars_boxes(path: Path, rows: list[np.void]) -> list[Box] | None:
    fields = ('bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2')
    if not rows or not set(fields) <= set(rows[0].dtype.names):
        return None
    boxes = []
    for row in rows:
        try:
            left, top, right, bottom = (int(row[field]) for field in fields)
        except (TypeError, ValueError):
            raise UserError(
                f'{path}: the box of {row["relative_im_path"]} is not four numbers'
            ) from None
        boxes.append((left - 1, top - 1, right, bottom))
    return boxes


AIRCRAFT = {
    'train': 'images_variant_trainval.txt',
    'val': 'images_variant_val.txt',
    'test': 'images_variant_test.txt',
}


def read_aircraft(root: Path, split: str) -> Split | None:
    """FGVC-Aircraft, by variants; 'train' is trainval.

    The boxes of ``images_box.txt`` count from one, with their last column and row.
    """
    folder = root / 'data' if (root / 'data').is_dir() else root
    if not all((folder / AIRCRAFT[name]).is_file() for name in ('train', 'test')):
        return None

    def read(name: str) -> list[list[str]]:
        rows = [line.split(None, 1) for line in read_lines(folder / name)]
        wrong = next((row for row in rows if len(row) != 2), None)
        if wrong:
            raise UserError(f'{folder / name}: {wrong[0]!r} is not "<image> <variant>"')
        return rows

    classes = sorted({variant for _, variant in read(AIRCRAFT['train'])})
    order = {name: i for i, name in enumerate(classes)}
    rows = read(AIRCRAFT[split])
    unknown = next((variant for _, variant in rows if variant not in order), None)
    if unknown:
        raise UserError(f'class {unknown!r} in {AIRCRAFT[split]} is not in {AIRCRAFT["train"]}')
    images = [str(folder / 'images' / f'{name}.jpg') for name, _ in rows]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(
            f'{folder / AIRCRAFT[split]} names {printable(missing)}, which is not there'
        )
    boxes = _aircraft_boxes(folder / 'images_box.txt', [name for name, _ in rows])
    return Split(classes, images, [order[variant] for _, variant in rows], boxes=boxes)


def read_aircraft_val(root: Path, val_share: float) -> Split | None:
    """The images of trainval that FGVC-Aircraft lists for validation; None without the list."""
    folder = root / 'data' if (root / 'data').is_dir() else root
    return read_aircraft(root, 'val') if (folder / AIRCRAFT['val']).is_file() else None


def _aircraft_boxes(path: Path, names: list[str]) -> list[Box] | None:
    if not path.is_file():
        return None
    rows = read_boxes(path, '<image> <xmin> <ymin> <xmax> <ymax>')
    boxes = {
        name: outward(left - 1, top - 1, right, bottom) for name, (left, top, right, bottom) in rows
    }
    return boxes_of(names, boxes, path)


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
