"""Adience as published: faces with their owners' gender and age, in five folds.

The folder holds ``fold_0_data.txt`` to ``fold_4_data.txt``, columns separated by tabs, and the
faces: ``aligned/<user_id>/landmark_aligned_face.<face_id>.<original_image>``, or, where there is no
``aligned/``, ``faces/<user_id>/coarse_tilt_aligned_face.<face_id>.<original_image>``.

Accuracy is measured by five-fold cross-validation: one fold is for testing, the others for
training. No person is in two folds; nor is one both in training and in validation images.

Rows without the label in question are left out, and a note counts them. Ages are eight classes; a
single year, or an interval other than theirs, is put into the class that holds all of it, and left
out if none does.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from fgplugins.data.images import printable
from fgplugins.data.splits import Split
from fgplugins.data.text_files import read_lines
from fgplugins.errors import UserError

__all__ = ['read_adience']

FOLDS = 5
GENDERS = {'f': 'female', 'm': 'male'}
AGES = ((0, 2), (4, 6), (8, 13), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100))
FACES = (('aligned', 'landmark_aligned_face'), ('faces', 'coarse_tilt_aligned_face'))
COLUMNS = ('user_id', 'original_image', 'face_id', 'age', 'gender')


def read_adience(root: Path, split: str, label: str = 'gender', fold: int = 0) -> Split | None:
    """Adience: ``fold`` is for testing, the others for training.

    Args:
        root: the folder.
        split: 'train' | 'test'.
        label: 'gender' | 'age'.
        fold: 0 ... 4.
    """
    lists = [root / f'fold_{i}_data.txt' for i in range(FOLDS)]
    if not lists[0].is_file():
        return None
    if label not in ('gender', 'age'):
        raise UserError(f"label={label!r}: must be 'gender' or 'age'")
    if type(fold) is not int or not 0 <= fold < FOLDS:
        raise UserError(f'fold={fold!r}: must be a whole number from 0 to {FOLDS - 1}')
    kind = next(((folder, stem) for folder, stem in FACES if (root / folder).is_dir()), None)
    if kind is None:
        raise UserError(f'{root} has the lists of Adience but neither aligned/ nor faces/')
    folder, stem = kind
    if label == 'gender':
        classes = list(GENDERS.values())
    else:
        classes = [f'{low}-{high}' for low, high in AGES]
    images, labels, people = [], [], []
    left_out: Counter[str] = Counter()
    for path in lists[fold : fold + 1] if split == 'test' else lists[:fold] + lists[fold + 1 :]:
        for user, image, face, age, gender in _rows(path):
            value = gender if label == 'gender' else age
            y = _gender(value) if label == 'gender' else _age(value)
            if y is None:
                left_out[value] += 1
                continue
            images.append(str(root / folder / user / f'{stem}.{face}.{image}'))
            labels.append(y)
            people.append(user)
            if not Path(images[-1]).is_file():
                raise UserError(f'{path} names {printable(images[-1])}, which is not there')
    notes = [f'{label}; fold {fold} of 0 to {FOLDS - 1} is for testing; faces of {folder}/']
    if left_out:
        common = ', '.join(repr(value) for value, _ in left_out.most_common(3))
        notes.append(f'faces without {label} among the classes: {left_out.total()}, as {common}')
    return Split(classes, images, labels, notes, groups=people)


def _rows(path: Path) -> list[list[str]]:
    """The columns that are needed of each row of a list."""
    header, *lines = read_lines(path) or ['']
    names = header.split('\t')
    absent = [name for name in COLUMNS if name not in names]
    if absent:
        raise UserError(f'{path}, line 1: it has no column {absent[0]}; columns are {COLUMNS}, ...')
    places = [names.index(name) for name in COLUMNS]
    rows = []
    for number, line in enumerate(lines, 2):
        cells = [cell.strip() for cell in line.split('\t')]
        if len(cells) <= max(places):
            raise UserError(f'{path}, line {number}: {line!r} has {len(cells)} columns only')
        rows.append([cells[place] for place in places])
    return rows


def _gender(text: str) -> int | None:
    return list(GENDERS).index(text) if text in GENDERS else None


def _age(text: str) -> int | None:
    """The class that holds a year, as '35', or an interval, as '(25, 32)'."""
    if not re.fullmatch(r'\d+|\(\d+, *\d+\)', text):
        return None
    years = [int(number) for number in re.findall(r'\d+', text)]
    held = (i for i, (low, high) in enumerate(AGES) if low <= min(years) and max(years) <= high)
    return next(held, None)
