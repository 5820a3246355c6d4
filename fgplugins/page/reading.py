"""A finished comparison as the page needs it: its results, images, and what each run predicted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from scipy.special import softmax

from fgplugins.compare.cells import CONTROL, Cell, read_cell
from fgplugins.compare.comparison import split_path
from fgplugins.compare.jobs import read_json
from fgplugins.data.images import printable
from fgplugins.data.split_files import images_folder, read_split_file
from fgplugins.errors import UserError, one_line

__all__ = ['Backbone', 'Comparison', 'Row', 'read_comparison']

# Shapes: n test images, k finished runs of a row, Y classes.


@dataclass
class Row:
    """A method on a backbone, by its finished runs.

    Attributes:
        method: name of the row.
        seeds: of the runs.
        predicted: (k, n) classes that the test images are taken for.
        shown: the seed whose maps are shown: of the best accuracy on the validation images, of
            equal ones the first; None without a run.
        cell: of that seed.
        scores: (n, Y) of that seed.
    """

    method: str
    seeds: list[int]
    predicted: np.ndarray
    shown: int | None = None
    cell: Cell | None = None
    scores: np.ndarray | None = None

    @property
    def percent(self) -> list[int]:
        """The probability of the class that the shown run predicts, of every image."""
        if self.scores is None:
            return []
        p = softmax(self.scores.astype(np.float64), axis=1).max(axis=1)
        return np.rint(100 * p).astype(int).tolist()


@dataclass
class Backbone:
    """A backbone, and its rows, the control first."""

    name: str
    rows: list[Row]

    @property
    def control(self) -> Row:
        return next(row for row in self.rows if row.method == CONTROL)


@dataclass
class Comparison:
    """A comparison's folder.

    Attributes:
        root: the folder.
        name: of its images' folder, or another by which the page knows it.
        results: its report/results.json.
        folder: of the images.
        images: paths of the test images, in the order of all scores.
        labels: (n,) their classes.
        backbones: what was compared.
    """

    root: Path
    name: str
    results: dict[str, Any]
    folder: Path
    images: list[str]
    labels: np.ndarray
    backbones: list[Backbone]

    @property
    def classes(self) -> list[str]:
        return self.results['classes']

    @property
    def files(self) -> list[str]:
        """Paths of the test images in their folder."""
        return [Path(os.path.relpath(path, self.folder)).as_posix() for path in self.images]


def read_comparison(root: Path) -> Comparison:
    """Read a comparison's folder.

    Raises:
        UserError: if it is none, or has no results, or they are not of its images.
    """
    asked = read_json(root / 'comparison.json')
    if asked is None:
        raise UserError(
            f'{printable(root)} is no comparison: give the folder that fgplugins compare wrote'
        )
    results = read_json(root / 'report' / 'results.json')
    if results is None:
        raise UserError(
            f'{printable(root)} has no report/results.json: run its command again: '
            f'{asked.get("command")}'
        )
    path = split_path(root)
    test = read_split_file(path, 'test')
    labels = np.asarray(test.labels, np.int64)
    if results['classes'] != list(test.classes):
        raise UserError(f'{printable(path)} has other classes than the results beside it')
    backbones = [
        Backbone(found['backbone'], [_row(root, row, labels) for row in found['rows']])
        for found in results['backbones']
    ]
    folder = images_folder(path)
    name = Path(asked.get('folder') or folder).name
    return Comparison(root, name, results, folder, list(test.images), labels, backbones)


def _row(root: Path, row: dict[str, Any], labels: np.ndarray) -> Row:
    runs = row['runs']
    if not runs:
        return Row(row['method'], [], np.zeros((0, len(labels)), np.int64))
    scores = [_test_scores(root / 'cells' / run['key'], labels) for run in runs]
    best = max(range(len(runs)), key=lambda i: runs[i]['val']['top1'])
    return Row(
        row['method'],
        [run['seed'] for run in runs],
        np.stack([of_run.argmax(axis=1) for of_run in scores]),
        runs[best]['seed'],
        read_cell(root / 'cells' / runs[best]['key']),
        scores[best],
    )


def _test_scores(folder: Path, labels: np.ndarray) -> np.ndarray:
    """Scores (n, Y) of a cell.

    Raises:
        UserError: if they are not there, or of other images.
    """
    try:
        with np.load(folder / 'scores.npz') as kept:
            scores, own = kept['test_scores'], kept['test_labels']
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise UserError(
            f'the scores of cell {folder.name} cannot be read: {one_line(error)}: run the '
            "comparison's command again"
        ) from None
    if not np.array_equal(own, labels):
        raise UserError(
            f'the scores of cell {folder.name} are not of the test images in split.json: run the '
            "comparison's command again"
        )
    return scores
