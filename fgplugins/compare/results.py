"""All that a comparison found, as one dictionary: what ``report/results.json`` holds.

Accuracies and calibration errors are in percent, differences in points. The same finished cells
give the same dictionary but for the times that the cells took.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fgplugins.compare.calibration import calibration_error, fit_temperature
from fgplugins.compare.cells import CONTROL, Cell
from fgplugins.compare.jobs import read_json
from fgplugins.compare.statistics import (
    LEVEL,
    POWER,
    Difference,
    compare_with_control,
    mean_and_deviation,
    with_family,
)
from fgplugins.compare.verdict import remarks, verdict
from fgplugins.errors import one_line

__all__ = ['RULE', 'Run', 'collect', 'read_run']

FORM = 1
PAIRS = 50  # confusion pairs that are listed as mended, and as broken
RULE = (
    'of the methods, that with the highest mean accuracy on the validation images; of its seeds, '
    'that with the highest accuracy on the validation images; no test image is asked'
)


@dataclass
class Run:
    """What is kept of a finished cell.

    Attributes:
        cell: what it is.
        result: its result.json.
        labels: (n,) true classes of the test images.
        predicted: (n,) classes that they are taken for.
        figures: accuracy and calibration error by part.
    """

    cell: Cell
    result: dict[str, Any]
    labels: np.ndarray
    predicted: np.ndarray
    figures: dict[str, Any]

    @property
    def right(self) -> np.ndarray:
        return self.predicted == self.labels

    @property
    def val(self) -> float:
        """Accuracy on the validation images."""
        return self.figures['val']['top1']


def read_run(root: Path, cell: Cell) -> Run:
    """A finished cell.

    Raises:
        ValueError: saying what is wrong with its files.
    """
    folder = cell.folder(root)
    try:
        result = json.loads((folder / 'result.json').read_text(encoding='utf-8'))
        with np.load(folder / 'scores.npz') as kept:
            val, test = kept['val_scores'], kept['test_scores']
            val_labels, labels = kept['val_labels'], kept['test_labels']
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise ValueError(f'its results cannot be read: {one_line(error)}') from None
    if not (np.isfinite(val).all() and np.isfinite(test).all()):
        raise ValueError('its scores are not finite')
    temperature = fit_temperature(val, val_labels)
    predicted = test.argmax(axis=1)
    figures = {
        'test': {
            'top1': 100 * float((predicted == labels).mean()),
            'ece': calibration_error(test, labels),
            'ece_scaled': calibration_error(test, labels, temperature),
        },
        'val': {
            'top1': 100 * float((val.argmax(axis=1) == val_labels).mean()),
            'ece': calibration_error(val, val_labels),
        },
        'train': result.get('train') or {'top1': None},
        'temperature': temperature,
    }
    return Run(cell, result, labels, predicted, figures)


def collect(
    root: Path,
    cells: Sequence[Cell],
    asked: Mapping[str, Any],
    classes: Sequence[str],
    costs: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Read the cells that were asked for, and compare.

    Args:
        root: folder of the comparison.
        cells: in the order of the report; trials are listed apart.
        asked: what is written down as it is: the command, the recipe, the split file, how many
            images its parts have, the hardware.
        classes: their names.
        costs: of a backbone and method, for the rows: 'params', 'macs', 'deployed_params',
            'deployed_macs', 'latency_ms', 'latency_times_control', 'train_seconds'.
    """
    counted = [cell for cell in cells if cell.trial is None]
    runs, failed = _read_all(root, counted)
    names = list(dict.fromkeys(cell.backbone for cell in counted))
    backbones = [
        _of_backbone(
            name, [c for c in counted if c.backbone == name], runs, failed, classes, costs or {}
        )
        for name in names
    ]
    best = [found['best'] | {'backbone': found['backbone']} for found in backbones if found['best']]
    return {
        'form': FORM,
        'asked': dict(asked),
        'classes': list(classes),
        'level': LEVEL,
        'power': POWER,
        'rule': RULE,
        'best': max(best, key=lambda b: b['val_mean']) if best else None,
        'backbones': backbones,
        'cells': [_described(cell, runs.get(cell.key)) for cell in counted],
        'trials': [_trial(root, cell) for cell in cells if cell.trial is not None],
    }


def _read_all(root: Path, cells: Sequence[Cell]) -> tuple[dict[str, Run], dict[str, str]]:
    """The finished runs, and why there is none of the others, by key."""
    runs: dict[str, Run] = {}
    failed: dict[str, str] = {}
    for cell in cells:
        folder = cell.folder(root)
        if not (folder / 'result.json').is_file():
            failed[cell.key] = _reason(folder)
            continue
        try:
            run = read_run(root, cell)
            first = next(iter(runs.values()), run)
            if not np.array_equal(run.labels, first.labels):
                raise ValueError(f'its test images are not those of {first.cell.key}')
        except ValueError as error:
            failed[cell.key] = one_line(error)
        else:
            runs[cell.key] = run
    return runs, failed


def _reason(folder: Path) -> str:
    """Why a cell has no result."""
    try:
        return str(json.loads((folder / 'failed.json').read_text(encoding='utf-8'))['reason'])
    except FileNotFoundError:
        return 'not finished'
    except (OSError, KeyError, TypeError, ValueError) as error:
        return f'failed.json cannot be read: {one_line(error)}'


def _of_backbone(
    backbone: str,
    cells: Sequence[Cell],
    runs: Mapping[str, Run],
    failed: Mapping[str, str],
    classes: Sequence[str],
    costs: Mapping[tuple[str, str], Mapping[str, Any]],
) -> dict[str, Any]:
    """The rows of one backbone, the control first, and what they say."""
    asked = list(dict.fromkeys(cell.method for cell in cells))
    methods = sorted(asked, key=lambda method: method != CONTROL)  # stable: else as asked
    of = {m: {c.seed: runs[c.key] for c in cells if c.method == m and c.key in runs} for m in asked}
    control = of.get(CONTROL, {})
    pairs = {m: _paired(of[m], control) for m in methods if m != CONTROL}
    compared = {
        found.method: found
        for found in with_family([_difference(m, *pair) for m, pair in pairs.items() if pair[0]])
    }
    rows = []
    for method in methods:
        row = _row(method, of[method], [c for c in cells if c.method == method], failed)
        row['comparison'] = row['classes'] = row['pairs'] = None
        if method in compared:
            row['comparison'] = _as_dict(compared[method])
            row['classes'] = _by_class(*pairs[method], classes)
            row['pairs'] = _confusions(*pairs[method], classes)
        row['cost'] = _train_seconds(row) | dict(costs.get((backbone, method), {}))
        rows.append(row)
    differences = list(compared.values())
    without = [m for m in pairs if m not in compared]
    lost = [row['method'] for row in rows if row['runs'] and row['failed']]
    return {
        'backbone': backbone,
        'verdict': verdict(differences, control=bool(control)),
        'remarks': remarks(differences, without if control else [], lost),
        'best': _best(rows),
        'rows': rows,
    }


def _paired(method: Mapping[int, Run], control: Mapping[int, Run]) -> tuple[list[Run], list[Run]]:
    """The runs of a method and of the control that have a seed in common."""
    seeds = sorted(method.keys() & control.keys())
    return [method[seed] for seed in seeds], [control[seed] for seed in seeds]


def _difference(method: str, runs: Sequence[Run], control: Sequence[Run]) -> Difference:
    return compare_with_control(
        method,
        [run.cell.seed for run in runs],
        np.stack([run.right for run in runs]),
        np.stack([run.right for run in control]),
    )


def _as_dict(found: Difference) -> dict[str, Any]:
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(found).items()}
    return values | {'found': found.found}


def _row(
    method: str, runs: Mapping[int, Run], cells: Sequence[Cell], failed: Mapping[str, str]
) -> dict[str, Any]:
    """A method's runs, their mean and deviation, and what failed."""
    done = [runs[seed] for seed in sorted(runs)]
    row: dict[str, Any] = {
        'method': method,
        'runs': [
            {'seed': run.cell.seed, 'key': run.cell.key, **run.figures, 'seconds': _seconds(run)}
            for run in done
        ],
        'failed': [
            {'seed': cell.seed, 'key': cell.key, 'reason': failed[cell.key]}
            for cell in cells
            if cell.key in failed
        ],
    }
    for part, figure in (
        ('test', 'top1'), ('test', 'ece'), ('test', 'ece_scaled'), ('val', 'top1')
    ):  # fmt: skip
        values = [run.figures[part][figure] for run in done]
        row[f'{part}_{figure}'] = mean_and_deviation(values) if values else None
    return row


def _seconds(run: Run) -> dict[str, float]:
    return run.result.get('seconds', {})


def _train_seconds(row: Mapping[str, Any]) -> dict[str, float]:
    """How long a training took, mean over the runs."""
    seconds = [run['seconds']['train'] for run in row['runs'] if 'train' in run['seconds']]
    return {'train_seconds': mean_and_deviation(seconds)['mean']} if seconds else {}


def _counts(runs: Sequence[Run], num_classes: int) -> np.ndarray:
    """The confusion matrix (Y, Y), true class by prediction, summed over runs."""
    total = np.zeros(num_classes * num_classes, np.int64)
    for run in runs:
        total += np.bincount(
            run.labels * num_classes + run.predicted, minlength=num_classes * num_classes
        )
    return total.reshape(num_classes, num_classes)


def _by_class(
    runs: Sequence[Run], control: Sequence[Run], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Accuracy by class of both, mean over runs, what gains most first."""
    images = np.bincount(runs[0].labels, minlength=len(classes))
    tests = len(runs) * images
    own, other = (_counts(of, len(classes)).diagonal() for of in (runs, control))
    rows = [
        {
            'class': name,
            'images': int(images[y]),
            'control': float(100 * other[y] / tests[y]),
            'method': float(100 * own[y] / tests[y]),
            'difference': float(100 * (own[y] - other[y]) / tests[y]),
        }
        for y, name in enumerate(classes)
        if images[y]
    ]
    return sorted(rows, key=lambda row: -row['difference'])


def _confusions(
    runs: Sequence[Run], control: Sequence[Run], classes: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Pairs of true class and wrong prediction, in images a run: rarer ones, more frequent ones."""
    own, other = _counts(runs, len(classes)), _counts(control, len(classes))
    change = own - other
    np.fill_diagonal(change, 0)
    rows = [
        {
            'truth': classes[i],
            'taken_for': classes[j],
            'control': float(other[i, j] / len(runs)),
            'method': float(own[i, j] / len(runs)),
            'difference': float(change[i, j] / len(runs)),
        }
        for i, j in zip(*change.nonzero(), strict=True)
    ]
    rows.sort(key=lambda row: row['difference'])
    return {
        'mended': [row for row in rows if row['difference'] < 0][:PAIRS],
        'broken': [row for row in reversed(rows) if row['difference'] > 0][:PAIRS],
    }


def _best(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The run whose checkpoint is kept, by `RULE`; of equal ones the first."""
    done = [row for row in rows if row['runs']]
    if not done:
        return None
    row = max(done, key=lambda row: row['val_top1']['mean'])
    run = max(row['runs'], key=lambda run: run['val']['top1'])
    return {
        'method': row['method'],
        'seed': run['seed'],
        'key': run['key'],
        'val_mean': row['val_top1']['mean'],
        'val_top1': run['val']['top1'],
    }


def _described(cell: Cell, run: Run | None) -> dict[str, Any]:
    """A cell, with what ran it if it is finished."""
    result = run.result if run else {}
    names = ('epochs', 'command', 'hardware', 'versions', 'seconds')
    return {'key': cell.key, **cell.as_json(), **{n: result[n] for n in names if n in result}}


def _trial(root: Path, cell: Cell) -> dict[str, Any]:
    """A trial of the tuning: its recipe, and its accuracy on the validation images."""
    result = read_json(cell.folder(root) / 'result.json')
    found = {'val': None, 'reason': _reason(cell.folder(root))} if result is None else {}
    return {'key': cell.key, **cell.as_json(), 'val': (result or {}).get('val'), **found}
