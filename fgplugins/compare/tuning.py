"""Rate and length of the training, chosen on the validation images: as many trials for every row.

The control gets as many trials as any method, from the same range. The test images are not read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna

from fgplugins.compare.cells import Cell
from fgplugins.compare.jobs import Job
from fgplugins.compare.plan import job_of
from fgplugins.compare.recipes import rescale

__all__ = ['tune']

RATE = (0.1, 10)  # times that of the recipe
LENGTH = (0.5, 1.0, 2.0)  # times that of the recipe
AT_ONCE = 4  # trials of a row that are chosen together, and may run side by side
SEED = 1000  # of the trials: none of the seeds that count


def tune(
    root: Path,
    split: str,
    mode: str,
    recipes: dict[tuple[str, str], dict[str, Any]],
    trials: int,
    run: Callable[[Sequence[Job]], None],
    command: str = '',
) -> dict[tuple[str, str], dict[str, Any]]:
    """The recipes with the rate and length that did best on the validation images.

    Trials of all rows run side by side, a few of each at a time. Trials that are there already are
    read, so an interrupted tuning goes on as it would have.

    Args:
        root: the comparison's folder.
        split: digest of the split.
        mode: 'quick' | 'finetune'.
        recipes: by backbone and row.
        trials: of each row.
        run: runs jobs to their end.
        command: that asks for them.

    Returns:
        The same, tuned; a row without a successful trial keeps its recipe.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies = {
        key: optuna.create_study(direction='maximize', sampler=optuna.samplers.TPESampler(seed=0))
        for key in recipes
    }
    for start in range(0, trials, AT_ONCE):
        asked = []
        for number in range(start, min(start + AT_ONCE, trials)):
            for (backbone, row), recipe in recipes.items():
                trial = studies[backbone, row].ask()
                if number == 0:  # the recipe itself comes first
                    factor, length = 1.0, 1.0
                else:
                    factor = trial.suggest_float('rate', *RATE, log=True)
                    length = trial.suggest_categorical('length', LENGTH)
                tried = rescale(recipe, mode, factor, length)
                cell = Cell(split, backbone, row, mode, tried, SEED, number)
                asked.append(((backbone, row), trial, cell))
        run([job_of(cell, root, command) for _, _, cell in asked])
        for key, trial, cell in asked:
            result = cell.folder(root) / 'result.json'
            if result.is_file():
                value = json.loads(result.read_text(encoding='utf-8'))['val']['top1']
                studies[key].tell(trial, value)
            else:
                studies[key].tell(trial, state=optuna.trial.TrialState.FAIL)
    chosen = {}
    for key, recipe in recipes.items():
        done = [t for t in studies[key].trials if t.value is not None]
        best = max(done, key=lambda t: t.value).params if done else {}
        chosen[key] = rescale(recipe, mode, best.get('rate', 1.0), best.get('length', 1.0))
    return chosen
