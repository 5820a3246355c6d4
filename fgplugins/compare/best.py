"""The checkpoint that a comparison leaves for use, by its rule."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from fgplugins.compare.cells import Cell
from fgplugins.compare.features import build_row, reader
from fgplugins.compare.jobs import read_json
from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.running.work_folder import latest_checkpoint
from fgplugins.zoo_timm import ComposedModel
from fgplugins.zoo_timm.deploy import deployed_checkpoint

__all__ = ['METHOD_FILE', 'RUN', 'best_checkpoint', 'checkpoint_of', 'write_best']

METHOD_FILE = 'method.pth'  # of a cell: weights of a method that was trained on features
RUN = 'run'  # of a cell: the folder of MMPretrain's runner
FILE = 'best.pth'


def _arguments(model: ComposedModel) -> dict[str, object]:
    """What ``timm.create_model`` builds a model with."""
    return {
        'backbone': model.backbone_name,
        'num_classes': model.num_classes,
        'in_chans': model.in_chans,
        'levels': model.levels,
        'head': model.head,
        **model.method_args,
        **model.backbone_args,
    }


def checkpoint_of(cell: Cell, root: Path, classes: Sequence[str], file: Path) -> None:
    """Write a finished cell's model to a file that all tools take.

    Args:
        cell: it.
        root: folder of the comparison.
        classes: their names.
        file: to write.
    """
    temporary = file.with_name(f'.{file.name}')
    folder = cell.folder(root)
    if cell.mode == 'quick':
        model = build_row(cell.method, cell.backbone, len(classes), cell.recipe)
        model.method.load_state_dict(torch.load(folder / METHOD_FILE, weights_only=True))
        data = reader(cell.backbone, model.input_size).data
        content = deployed_checkpoint(model, model.method_name, _arguments(model), classes, data)
        torch.save(content, temporary)
    else:
        shutil.copyfile(latest_checkpoint(folder / RUN), temporary)
    temporary.replace(file)


def write_best(root: Path, cell: Cell, classes: Sequence[str]) -> Path:
    """Write ``report/best.pth``, unless it is there already.

    Args:
        root: folder of the comparison.
        cell: the best one, by the rule.
        classes: their names.
    """
    file, note = root / 'report' / FILE, root / 'report' / '.best.json'
    if not (file.is_file() and (read_json(note) or {}).get('key') == cell.key):
        checkpoint_of(cell, root, classes, file)
        note.write_text(json.dumps({'key': cell.key}) + '\n', encoding='utf-8')
    return file


def best_checkpoint(path: str) -> str:
    """The best checkpoint of a comparison's folder; any other path as it is.

    Raises:
        UserError: if the comparison has none yet.
    """
    folder = Path(path)
    if not (folder / 'comparison.json').is_file():
        return path
    file = folder / 'report' / FILE
    if not file.is_file():
        raise UserError(
            f'{path} is a comparison without a finished cell: run its command again: '
            f'{(read_json(folder / "comparison.json") or {}).get("command", "fgplugins compare")}'
        )
    return str(file)
