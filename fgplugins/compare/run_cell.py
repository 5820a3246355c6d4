"""The process of one cell: ``python -m fgplugins.compare.run_cell FOLDER`` writes its result.json.

``FOLDER/../..`` is the comparison's, with its split file and features.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgplugins.analysis.timing import machine_record
from fgplugins.compare.cells import METHOD_FILE, Cell, read_cell, read_command
from fgplugins.compare.comparison import parts_of, split_path
from fgplugins.compare.features import Features, build_row, features_folder, plan_features
from fgplugins.compare.heads import score, train_head
from fgplugins.compare.jobs import only_process_in, write_json
from fgplugins.errors import one_line
from fgplugins.serving.models import choose_device
from fgplugins.utils.command_line import main_guard
from fgplugins.utils.memory import keep_freed_memory
from fgplugins.utils.whole_file import whole_file

__all__ = ['run']


def _progress(folder: Path) -> Callable[[int, int, float], None]:
    def note(epoch: int, epochs: int, seconds: float) -> None:
        content = {'epoch': epoch, 'epochs': epochs, 'seconds': round(seconds, 3)}
        write_json(folder / 'progress.json', content)
        print(f'epoch {epoch} of {epochs}, {seconds:.1f} s', flush=True)

    return note


def run(folder: Path) -> None:
    """Train and test the cell of a folder, and write its scores and its result.

    Args:
        folder: with ``cell.json``, in a comparison's ``cells``.

    Raises:
        UserError: if another process trains the cell.
    """
    # the other processes of a cell on several devices wait for the main one
    with only_process_in(folder) if _is_main() else nullcontext():
        _run(folder)


def _is_main() -> bool:
    """Whether this is the one process, or the first, of a cell."""
    return os.environ.get('RANK', '0') == '0'


def _run(folder: Path) -> None:
    cell, root = read_cell(folder), folder.parent.parent
    parts = parts_of(root)
    device = choose_device('auto')
    if device.type == 'cpu':
        keep_freed_memory()
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())))
    run_mode = _run_quick if cell.mode == 'quick' else _run_finetune
    found, seconds, epochs = run_mode(cell, root, folder, len(parts['train'].classes), device)
    if not found:  # of a process that only helps
        return
    labels = {part: np.asarray(parts[part].labels, np.int64) for part in found}
    arrays = {f'{part}_scores': values.numpy() for part, values in found.items()}
    arrays |= {f'{part}_labels': values for part, values in labels.items()}
    with whole_file(folder / 'scores.npz') as file:
        np.savez_compressed(file, **arrays)
    top1 = {
        part: {'top1': round(100 * float((values.argmax(1).numpy() == labels[part]).mean()), 4)}
        for part, values in found.items()
    }
    content = {
        'form': 1,
        'cell': cell.as_json(),
        'key': cell.key,
        **top1,
        'seconds': {name: round(value, 3) for name, value in seconds.items()},
        'epochs': epochs,
        'hardware': _hardware(device),
        'versions': _versions(),
        'command': read_command(folder),
    }
    write_json(folder / 'result.json', content)
    if cell.mode == 'finetune':
        _shrink(folder)
    print(', '.join(f'{part} top-1 {value["top1"]:.2f} %' for part, value in top1.items()))


def _tested(cell: Cell) -> tuple[str, ...]:
    """The parts that are scored: a trial of the tuning never sees the test images."""
    return ('val',) if cell.trial is not None else ('val', 'test')


def _run_quick(
    cell: Cell, root: Path, folder: Path, num_classes: int, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, float], int]:
    torch.manual_seed(cell.seed)
    model = build_row(cell.method, cell.backbone, num_classes, cell.recipe, pretrained=False)
    plan = plan_features(cell.backbone, {cell.method: model})
    stored = features_folder(root, cell.backbone)
    of_part = {
        part: Features(stored, *plan.rows[cell.method], part) for part in ('train', *_tested(cell))
    }
    start = time.perf_counter()
    train_head(model.method, of_part['train'], cell.recipe, cell.seed, device, _progress(folder))
    trained = time.perf_counter()
    scores = {part: score(model.method, of_part[part], device) for part in _tested(cell)}
    seconds = {'train': trained - start, 'test': time.perf_counter() - trained}
    with whole_file(folder / METHOD_FILE) as file:
        torch.save(model.method.cpu().state_dict(), file)
    return scores, seconds, cell.recipe['epochs']


def _run_finetune(
    cell: Cell, root: Path, folder: Path, num_classes: int, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, float], int]:
    from fgplugins.compare.training import FineTuned

    training = FineTuned(cell, split_path(root), num_classes, folder)
    start = time.perf_counter()
    training.train(_progress(folder))
    trained = time.perf_counter()
    scores = {part: training.scores(part) for part in _tested(cell) if _is_main()}
    seconds = {
        'train': training.earlier + trained - start,
        'test': time.perf_counter() - trained,
    }
    return scores, seconds, training.cfg.train_cfg.max_epochs


def _shrink(folder: Path) -> None:
    """Make the checkpoint small; the cell is finished without that, too."""
    from fgplugins.compare.training import shrink

    try:
        shrink(folder)
    except (OSError, RuntimeError) as error:
        print(f'note: the checkpoint keeps the state of its training: {one_line(error)}')


def _hardware(device: torch.device) -> dict[str, Any]:
    record = machine_record(str(device))
    name = record.get('gpu') or record['cpu']
    found = {'device': device.type, 'name': name, 'threads': record['threads']}
    processes = int(os.environ.get('WORLD_SIZE', '1'))
    return found if processes == 1 else {**found, 'processes': processes}


def _versions() -> dict[str, str]:
    return {
        **{name: metadata.version(name) for name in ('fgplugins', 'torch', 'timm')},
        'python': platform.python_version(),
    }


def main() -> None:
    run(Path(sys.argv[1]))


if __name__ == '__main__':
    main_guard(main)
