"""Rate and length of the training, chosen on the validation images: as many trials for every row.

The control gets as many trials as any method, from the same range. The test images are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna

from fgplugins.compare.cells import Cell
from fgplugins.compare.jobs import Job, read_json
from fgplugins.compare.plan import job_of, place_of
from fgplugins.compare.recipes import rescale

__all__ = ['tune', 'tuned_before']

RATE = (0.1, 10)  # times that of the recipe
LENGTH = (0.5, 1.0, 2.0)  # times that of the recipe
AT_ONCE = 4  # trials of a row that are chosen together, and may run side by side
SEED = 1000  # of the trials: none of the seeds that count


class _Study:
    """The trials of one row.

    Args:
        backbone: name of the network.
        row: of the comparison.
        recipe: of the row.
        split: digest of the split.
        mode: 'quick' | 'finetune'.
    """

    def __init__(
        self, backbone: str, row: str, recipe: dict[str, Any], split: str, mode: str
    ) -> None:
        self.backbone, self.row, self.recipe = backbone, row, recipe
        self.split, self.mode = split, mode
        sampler = optuna.samplers.TPESampler(seed=0)
        self.study = optuna.create_study(direction='maximize', sampler=sampler)
        self.open: list[tuple[optuna.Trial, Cell]] = []

    def ask(self, trials: int) -> list[Cell]:
        """The next few trials, of so many."""
        start = len(self.study.trials)
        for number in range(start, min(start + AT_ONCE, trials)):
            trial = self.study.ask()
            if number == 0:  # the recipe itself comes first
                factor, length = 1.0, 1.0
            else:
                factor = trial.suggest_float('rate', *RATE, log=True)
                length = trial.suggest_categorical('length', LENGTH)
            tried = rescale(self.recipe, self.mode, factor, length)
            cell = Cell(self.split, self.backbone, self.row, self.mode, tried, SEED, number)
            self.open.append((trial, cell))
        return [cell for _, cell in self.open]

    def tell(self, root: Path) -> None:
        """Read what came out of the trials that were asked for; one without a result has failed."""
        for trial, cell in self.open:
            result = read_json(cell.folder(root) / 'result.json')
            if result is None:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                self.study.tell(trial, result['val']['top1'])
        self.open = []

    def best(self) -> dict[str, Any]:
        """The recipe of the best trial; that of the row where none was successful."""
        done = [t for t in self.study.trials if t.value is not None]
        best = max(done, key=lambda t: t.value).params if done else {}
        rate, length = best.get('rate', 1.0), best.get('length', 1.0)
        return rescale(self.recipe, self.mode, rate, length)


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
    studies = {key: _Study(*key, recipe, split, mode) for key, recipe in recipes.items()}
    while asked := [cell for study in studies.values() for cell in study.ask(trials)]:
        asked.sort(key=lambda cell: cell.trial)  # a row's trials are in turn with the others'
        run([job_of(cell, root, command) for cell in asked])
        for study in studies.values():
            study.tell(root)
    return {key: study.best() for key, study in studies.items()}


def tuned_before(
    root: Path,
    split: str,
    mode: str,
    key: tuple[str, str],
    recipe: dict[str, Any],
    trials: int,
) -> dict[str, Any] | None:
    """What `tune` found for a row in an earlier command; None if its trials are not all there.

    Args:
        root: the comparison's folder.
        split: digest of the split.
        mode: 'quick' | 'finetune'.
        key: backbone and row.
        recipe: of the row, before tuning.
        trials: of the row.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _Study(*key, recipe, split, mode)
    while asked := study.ask(trials):
        jobs = [place_of(cell, root) for cell in asked]
        if not all(job.finished or job.failure is not None for job in jobs):
            return None
        study.tell(root)
    return study.best()
