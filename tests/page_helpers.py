"""Comparisons for the tests of the page: folders as `fgplugins compare` leaves them, made by hand.

Nothing is trained: scores are drawn by chance, and methods have the weights that they start with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from fgplugins.compare.cells import METHOD_FILE, Cell
from fgplugins.compare.comparison import split_path, write_comparison
from fgplugins.compare.features import build_row
from fgplugins.compare.jobs import write_json
from fgplugins.compare.results import collect
from fgplugins.data.split_files import write_split_file
from fgplugins.data.splits import Split

RECIPE = {'epochs': 2, 'arguments': {}, 'size': 64}
VAL = 12  # validation images: their scores are there, and what was right


def save_network(folder: Path) -> str:
    """A network of timm with weights, in a folder; the name that it has then."""
    torch.manual_seed(0)
    save_for_hf(timm.create_model('test_resnet', num_classes=5), folder)
    return f'local-dir:{folder}'


def draw_images(folder: Path, count: int, side: int = 48) -> list[str]:
    """So many images, each of another colour and a bright spot elsewhere."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    paths = []
    for i in range(count):
        image = np.empty((side, side + 8, 3), np.uint8)
        image[:] = generator.integers(0, 160, 3)
        y, x = generator.integers(0, side - 8, 2)
        image[y : y + 8, x : x + 8] = 255
        paths.append(str(folder / f'{i:05}.png'))
        Image.fromarray(image).save(paths[-1])
    return paths


def make_comparison(
    root: Path,
    classes: Sequence[str],
    images: Sequence[str],
    rows: Sequence[str] = ('gap', 'warn'),
    seeds: int = 3,
    backbone: str = 'a_network',
    failed: Mapping[tuple[str, int], str] | None = None,
    right: float = 0.7,
    costs: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> Path:
    """A finished comparison.

    Args:
        root: where to.
        classes: names.
        images: one to train on, one to validate on, and the test images, shared out over the
            classes in turn.
        rows: methods.
        seeds: of each.
        backbone: a network that `save_network` saved, for maps; any name without.
        failed: the reason, by row and seed.
        right: share of images that a run has right, about.
        costs: see `fgplugins.compare.results.collect`.
    """
    root.mkdir(parents=True)
    generator, Y = np.random.default_rng(1), len(classes)
    by_class = sorted((i % Y, path) for i, path in enumerate(images[2:]))
    labels = [label for label, _ in by_class]
    test = Split(list(classes), [path for _, path in by_class], labels)
    train, val = (Split(list(classes), [path], [0]) for path in images[:2])
    parts = {'train': train, 'val': val, 'test': test}
    write_split_file(split_path(root), Path(images[0]).parent, parts, [], {})
    asked = {
        'folder': str(Path(images[0]).parent), 'mode': 'quick', 'backbones': [backbone],
        'rows': list(rows), 'seeds': seeds, 'command': f'fgplugins compare {classes[0]} --quick',
    }  # fmt: skip
    digest = write_comparison(root, None, asked)
    truth, cells = np.asarray(labels), []
    val_labels = np.arange(VAL) % Y
    for row in rows:
        for seed in range(seeds):
            cell = Cell(digest, backbone, row, 'quick', RECIPE, seed)
            cells.append(cell)
            folder = cell.folder(root)
            folder.mkdir(parents=True)
            write_json(folder / 'cell.json', cell.as_json())
            if (row, seed) in (failed or {}):
                write_json(folder / 'failed.json', {'reason': failed[row, seed]})
                continue
            np.savez(
                folder / 'scores.npz',
                test_scores=_scores(generator, truth, Y, right),
                test_labels=truth,
                val_scores=_scores(generator, val_labels, Y, right),
                val_labels=val_labels,
            )
            content = {
                'val': {'top1': 50.0}, 'test': {'top1': 50.0}, 'train': {'top1': None},
                'seconds': {'train': 3.0, 'test': 1.0}, 'epochs': 2, 'command': asked['command'],
                'versions': {'fgplugins': '0.1.0'}, 'hardware': {'device': 'cpu'},
            }  # fmt: skip
            write_json(folder / 'result.json', content)
            if backbone.startswith('local-dir:'):
                torch.manual_seed(seed)
                model = build_row(row, backbone, Y, RECIPE)
                torch.save(model.method.state_dict(), folder / METHOD_FILE)
    report = root / 'report'
    report.mkdir()
    counts = {'train': 10, 'val': VAL, 'test': len(truth)}
    written = {**asked, 'images': counts, 'split_file': 'split.json'}
    write_json(report / 'results.json', collect(root, cells, written, classes, costs))
    return root


def _scores(
    generator: np.random.Generator, labels: np.ndarray, num_classes: int, right: float
) -> np.ndarray:
    """Scores (n, Y) of which about this share is right; what is hard is so for all runs."""
    hard = np.random.default_rng(2).random(len(labels))
    said = labels.copy()
    wrong = hard + generator.normal(0, 0.1, len(labels)) > right
    said[wrong] = (labels[wrong] + generator.integers(1, min(3, num_classes), wrong.sum())
                   if num_classes > 2 else labels[wrong] + 1) % num_classes  # fmt: skip
    scores = generator.normal(0, 1, (len(labels), num_classes))
    scores[np.arange(len(labels)), said] += 6
    return scores.astype(np.float32)


def results_of(root: Path) -> dict[str, Any]:
    return json.loads((root / 'report' / 'results.json').read_text(encoding='utf-8'))


def script_content(path: Path) -> Any:
    """What a script of the page assigns."""
    text = path.read_text(encoding='ascii')
    return json.loads(text.split(' = ', 1)[1].removesuffix(';\n'))
