"""The process that computes features: ``python -m fgplugins.compare.run_features FOLDER``.

``FOLDER/../..`` is the comparison's; ``FOLDER/rows.json`` says what for.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

from fgplugins.compare.comparison import parts_of, split_digest, split_path
from fgplugins.compare.features import build_row, compute, plan_features
from fgplugins.compare.jobs import read_json, write_json
from fgplugins.serving.files import default_workers
from fgplugins.serving.models import choose_device
from fgplugins.utils.command_line import main_guard
from fgplugins.utils.memory import keep_freed_memory

__all__ = ['run']

EVERY = 2.0  # seconds between two notes of the progress


def run(folder: Path) -> None:
    """Compute what ``rows.json`` asks for, and write ``result.json``.

    Args:
        folder: in a comparison's ``features``.
    """
    root = folder.parent.parent
    asked = read_json(folder / 'rows.json')
    parts = parts_of(root)
    num_classes = len(parts['train'].classes)
    rows = {
        row: build_row(row, asked['backbone'], num_classes, recipe)
        for row, recipe in asked['rows'].items()
    }
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())))
    start = last = time.perf_counter()

    def note(done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last > EVERY or done == total:
            last = now
            content = {'epoch': done, 'epochs': total, 'seconds': round(now - start, 3)}
            write_json(folder / 'progress.json', content)

    plan = plan_features(asked['backbone'], rows)
    digest = split_digest(split_path(root))
    device = choose_device('auto')
    if device.type == 'cpu':
        keep_freed_memory()
    workers = 1 if device.type == 'cpu' else default_workers()  # there the network takes longer
    compute(folder, plan, rows, parts, digest, device, workers, note)
    write_json(folder / 'result.json', {'seconds': round(time.perf_counter() - start, 3)})


def main() -> None:
    run(Path(sys.argv[1]))


if __name__ == '__main__':
    main_guard(main)
