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

__all__ = ['cells_to_report', 'write_report']


def cells_to_report(
    root: Path, asked: Sequence[Cell], recipe_of: Callable[[str], dict[str, Any]], trials: int = 0
) -> list[Cell]:
    """The cells that were asked for, and those of earlier commands that go with them.

    These are of the same split and mode, and were trained by the recipe that their row has now,
    finished or not; on another backbone only where the control is among them.

    Args:
        root: folder of the comparison.
        asked: by this command.
        recipe_of: the recipe of a row.
        trials: of each row that this command asked for.
    """
    known, first = {cell.key for cell in asked}, asked[0]
    tuned = {(cell.backbone, cell.method): cell.recipe for cell in asked}
    found = list(asked)
    for folder in sorted((root / 'cells').iterdir()):
        if folder.name in known:
            continue
        try:
            cell = read_cell(folder)
        except (OSError, TypeError, ValueError):  # damaged, and asked for no longer
            continue
        if (cell.split, cell.mode) != (first.split, first.mode):
            continue
        recipe = tuned.get((cell.backbone, cell.method)) or recipe_of(cell.method)
        if cell.trial is None:
            counts = cell.recipe == recipe
        else:
            counts = cell.trial < trials and place_of(cell, root).finished
        if counts:
            found.append(cell)
    compared = {cell.backbone for cell in found if cell.method == CONTROL and cell.trial is None}
    return [cell for cell in found if cell.backbone in compared]


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
        write_best(root, cell, parts['train'].classes)
    return results
