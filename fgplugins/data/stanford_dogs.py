"""Stanford Dogs as published: 120 breeds, with lists of training and test images, and boxes.

The folder holds ``Images/n02085620-Chihuahua/*.jpg``, the lists ``train_list.mat`` and
``test_list.mat``, there or in ``lists/``, and perhaps ``Annotation/n02085620-Chihuahua/*``: XML
files whose corners are taken as edges that count from zero. An image with several dogs, all of one
breed, has the box around all of them.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fgplugins.data.boxes import Box
from fgplugins.data.images import printable
from fgplugins.data.matlab import load_mat
from fgplugins.data.splits import Split
from fgplugins.data.text_files import read_text
from fgplugins.errors import UserError

__all__ = ['read_dogs']


def read_dogs(root: Path, split: str) -> Split | None:
    """Stanford Dogs; breeds are named without the number of their synset."""
    lists = root / 'lists' if (root / 'lists').is_dir() else root
    paths = {name: lists / f'{name}_list.mat' for name in ('train', 'test')}
    if not all(path.is_file() for path in paths.values()):
        return None
    names: dict[int, str] = {}
    for name in ('train', 'test'):
        rows = _rows(paths[name])
        for file, label in rows:
            folder = file.split('/')[0]
            if names.setdefault(label, folder) != folder:
                raise UserError(
                    f'{paths[name]}: label {label} is of {names[label]} and of {printable(folder)}'
                )
        if name == split:
            chosen = rows
    order = {label: position for position, label in enumerate(sorted(names))}
    images = [str(root / 'Images' / file) for file, _ in chosen]
    missing = next((f for f in images if not Path(f).is_file()), None)
    if missing:
        raise UserError(f'{paths[split]} names {printable(missing)}, which is not there')
    boxes = None
    if (root / 'Annotation').is_dir():
        boxes = [
            _box(root / 'Annotation' / Path(file).with_suffix(''), image)
            for (file, _), image in zip(chosen, images, strict=True)
        ]
    classes = [names[label].split('-', 1)[-1] for label in sorted(names)]
    return Split(classes, images, [order[label] for _, label in chosen], boxes=boxes)


def _rows(path: Path) -> list[tuple[str, int]]:
    """The image and the label of each row of a list."""
    content = load_mat(path)
    absent = [key for key in ('file_list', 'labels') if key not in content]
    if absent:
        raise UserError(f'{path} has no {" and no ".join(absent)}: it is no list of Stanford Dogs')
    files, labels = (np.atleast_1d(content[key]) for key in ('file_list', 'labels'))
    return [(str(file), int(label)) for file, label in zip(files, labels, strict=True)]


def _box(path: Path, image: str) -> Box:
    """The box around all objects of an annotation.

    Raises:
        UserError: naming the file, if it is absent, no such annotation, or could expand entities.
    """
    if not path.is_file():
        raise UserError(
            f'{printable(path)}, the box of {printable(image)}, is not there: unpack the '
            'annotations again, or remove Annotation/ to do without boxes'
        )
    text = read_text(path)
    try:
        if '<!DOCTYPE' in text or '<!ENTITY' in text:
            raise ValueError('it defines entities')
        corners = [
            [int(box.findtext(tag, '')) for tag in ('xmin', 'ymin', 'xmax', 'ymax')]
            for box in ElementTree.fromstring(text).iter('bndbox')
        ]
        if not corners:
            raise ValueError('it has no bndbox')
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f'{printable(path)} is no annotation with boxes: {error}') from None
    left, top, right, bottom = zip(*corners, strict=True)
    return min(left), min(top), max(right), max(bottom)
