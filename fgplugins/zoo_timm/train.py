r"""Run timm's own training script with the models and losses of this package.

    python -m fgplugins.zoo_timm.train path/to/timm/train.py --data-dir birds --model warn \
        --model-kwargs backbone=resnet18 --num-classes 100 ...

Every argument after the script is timm's. The script is not part of timm's wheel; take it from
timm's repository, at the version that is installed. A model that is not composed of a method trains
as it always does. A folder is read in the layouts that `tools/train.py` knows: validation is on
val/, or else on test/. Checkpoints keep the classes' names, and --resume compares them.
"""

from __future__ import annotations

import functools
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm.data
import timm.task
from timm.task import TrainingTask
from timm.utils.model import unwrap_model
from torch import nn

from fgplugins.data.classes import check_same_classes
from fgplugins.errors import UserError, one_line
from fgplugins.utils.command_line import main_guard
from fgplugins.zoo_timm.checkpoints import check_same_method, check_weights, read_checkpoint
from fgplugins.zoo_timm.composed import ComposedModel
from fgplugins.zoo_timm.data import RunData
from fgplugins.zoo_timm.task import classification_task

__all__ = ['main']


def _task(data: RunData, model: nn.Module, *args: Any, **kwargs: Any) -> TrainingTask:
    """The training task, whose checkpoints say what the data's classes are called."""
    data.check_number(getattr(model, 'num_classes', None))
    task = classification_task(model, *args, **kwargs)
    task.class_names = data.classes
    return task


def _resume(
    data: RunData, resume: Callable, task: TrainingTask, path: str, *args: Any, **kwargs: Any
) -> int | None:
    """``timm.task.resume_task_checkpoint`` of a checkpoint of the same method and classes.

    Raises:
        UserError: if they differ.
    """
    saved = read_checkpoint(path)
    model = unwrap_model(task.get_eval_model())
    if isinstance(model, ComposedModel):
        check_same_method(saved, model.method_name)
    if saved.classes and data.classes:
        check_same_classes(saved.classes, data.classes, f'checkpoint {path!r}', data.root)
    check_weights(model, saved)
    try:
        return resume(task, path, *args, **kwargs)
    except (KeyError, RuntimeError, ValueError) as error:  # as the state of another optimizer
        reason = one_line(error, 200)
        raise UserError(f'--resume {path!r} does not fit this run: {reason}') from error


def main() -> None:
    """Put our data and training task in the place of timm's, and run its script."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ('-h', '--help'):
        print(__doc__)
        return
    script = Path(arguments[0])
    if not script.is_file():
        raise UserError(f"{arguments[0]!r} is not a file: give the path of timm's train.py first")
    if 'ClassificationTask(' not in script.read_text(encoding='utf-8', errors='replace'):
        raise UserError(
            f'{script} does not train through timm.task.ClassificationTask: take the train.py of '
            f'timm {timm.__version__}'
        )
    data = RunData()
    timm.data.create_dataset = data.create_dataset
    timm.task.ClassificationTask = functools.partial(_task, data)
    resume = timm.task.resume_task_checkpoint
    timm.task.resume_task_checkpoint = functools.partial(_resume, data, resume)
    sys.argv = arguments
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
    main_guard(main)
