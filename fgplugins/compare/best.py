"""The checkpoint that a comparison leaves for use, by its rule."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from fgplugins.compare.cells import METHOD_FILE, RUN, Cell
from fgplugins.compare.features import build_row, reader
from fgplugins.compare.jobs import is_whole, read_json, write_json
from fgplugins.errors import UserError
from fgplugins.serving.models import BEST
from fgplugins.utils.whole_file import whole_file
from fgplugins.zoo_mmpretrain.running.work_folder import latest_checkpoint
from fgplugins.zoo_timm import ComposedModel
from fgplugins.zoo_timm.deploy import deployed_checkpoint

__all__ = ['checkpoint_of', 'write_best']


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

    Raises:
        UserError: if the cell's weights are gone, or damaged.
    """
    folder = cell.folder(root)
    trained = folder / METHOD_FILE if cell.mode == 'quick' else latest_checkpoint(folder / RUN)
    if trained is None or not is_whole(Path(trained)):
        raise UserError(
            f'{cell.method}, seed {cell.seed} has no checkpoint that can be read: remove {folder}, '
            'and the same command trains it again'
        )
    if cell.mode == 'quick':
        model = build_row(cell.method, cell.backbone, len(classes), cell.recipe)
        model.method.load_state_dict(torch.load(trained, weights_only=True))
        data = reader(cell.backbone, model.input_size).data
        content = deployed_checkpoint(model, model.method_name, _arguments(model), classes, data)
        with whole_file(file) as made:
            torch.save(content, made)
    else:
        with whole_file(file) as made, Path(trained).open('rb') as kept:
            shutil.copyfileobj(kept, made)


def write_best(root: Path, cell: Cell, classes: Sequence[str]) -> Path:
    """Write ``report/best.pth``, unless it is there already, and what is known of it beside it.

    Args:
        root: folder of the comparison.
        cell: the best one, by the rule.
        classes: their names.

    Raises:
        UserError: if the cell's weights are gone, or damaged; nothing is there then.
    """
    file = root / BEST
    note = file.with_suffix('.json')
    result = read_json(cell.folder(root) / 'result.json')
    if not (is_whole(file) and (read_json(note) or {}).get('key') == cell.key):
        for old in (file, note):
            old.unlink(missing_ok=True)
        checkpoint_of(cell, root, classes, file)
    metrics = {f'top-1, {part} images of the comparison': result[part]['top1']
               for part in ('test', 'val')}  # fmt: skip
    write_json(note, {'key': cell.key, 'metrics': metrics})
    return file
