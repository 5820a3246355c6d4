"""``OUT/report``: the answer of a comparison as files, and the best checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgplugins.compare.best import write_best
from fgplugins.compare.cells import CONTROL, Cell, read_cell
from fgplugins.compare.comparison import parts_of, split_path
from fgplugins.compare.jobs import write_json
from fgplugins.compare.plan import place_of
from fgplugins.compare.plots import write_plots
from fgplugins.compare.results import collect
from fgplugins.compare.tables import write_tables
from fgplugins.data.split_files import PARTS
from fgplugins.errors import UserError

__all__ = ['cells_to_report', 'write_report']


def cells_to_report(
    root: Path,
    asked: Sequence[Cell],
    recipe_of: Callable[[str, str], dict[str, Any] | None],
    trials: int = 0,
) -> tuple[list[Cell], list[str]]:
    """The cells that were asked for, and those of earlier commands that go with them.

    These are of the same split and mode, have finished or failed, and were trained by the recipe
    that their row has now; on another backbone only where the control is among them.

    Args:
        root: folder of the comparison.
        asked: by this command.
        recipe_of: the recipe of a row that was not asked for, by its backbone and name; None if it
            has none.
        trials: of each row that this command asked for.

    Returns:
        The cells, and the rows of earlier commands that are left out for their recipe or that of
        their control.
    """
    known, first = {cell.key for cell in asked}, asked[0]
    recipes = {(cell.backbone, cell.method): cell.recipe for cell in asked}
    found, others = list(asked), []
    for folder in sorted((root / 'cells').iterdir()):
        if folder.name in known:
            continue
        try:
            cell = read_cell(folder)
        except (OSError, TypeError, ValueError):  # damaged, and asked for no longer
            continue
        job, row = place_of(cell, root), (cell.backbone, cell.method)
        if (cell.split, cell.mode) != (first.split, first.mode):
            continue
        if cell.trial is not None:
            if cell.trial < trials and job.finished:
                found.append(cell)
        elif job.finished or job.failure is not None:
            if row not in recipes:
                recipes[row] = recipe_of(*row)
            (found if cell.recipe == recipes[row] else others).append(cell)
    compared = {cell.backbone for cell in found if cell.method == CONTROL and cell.trial is None}
    counted = [cell for cell in found if cell.backbone in compared]
    rows = {(cell.backbone, cell.method) for cell in counted if cell.trial is None}
    others += [cell for cell in found if cell not in counted and cell.trial is None]
    left_out = [cell for cell in others if (cell.backbone, cell.method) not in rows]
    return counted, list(dict.fromkeys(f'{c.method} on {c.backbone}' for c in left_out))


def write_report(
    root: Path,
    cells: Sequence[Cell],
    asked: dict[str, Any],
    costs: Mapping[tuple[str, str], Mapping[str, Any]],
) -> dict[str, Any]:
    """Write ``report/``: results.json, results.md, results.csv, plots and the best checkpoint.

    Args:
        root: folder of the comparison.
        cells: all that are to be counted, and trials.
        asked: what is written down as it is.
        costs: by backbone and row.

    Returns:
        The results.
    """
    parts = parts_of(root)
    images = {part: len(parts[part].images) for part in PARTS}
    folder = root / 'report'
    folder.mkdir(exist_ok=True)
    results = collect(
        root,
        cells,
        {**asked, 'split_file': split_path(root).name, 'images': images},
        parts['train'].classes,
        costs,
    )
    write_json(folder / 'results.json', results)
    write_tables(results, folder)
    write_plots(results, folder)
    if results['best'] is not None:
        cell = next(cell for cell in cells if cell.key == results['best']['key'])
        try:
            write_best(root, cell, parts['train'].classes)
        except UserError as error:
            print(f'note: no report/best.pth: {error}')
    return results
