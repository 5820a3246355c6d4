r"""Run timm's own training script with the models and losses of this package.

    python -m fgplugins.zoo_timm.train path/to/timm/train.py --data-dir birds --model warn \
        --model-kwargs backbone=resnet18 --num-classes 100 ...

Every argument after the script is timm's. The script is not part of timm's wheel; take it from
timm's repository, at the version that is installed. A model that is not composed of a method trains
as it always does. A folder is read in the layouts that `tools/train.py` knows: validation is on
val/, or else on test/. Checkpoints keep the classes' names, and --resume compares them.

Before the script: --restriction-schedule BEGIN PERIOD leaves out L_res of art, after BEGIN epochs,
for PERIOD epochs, has it for PERIOD, and so on; the paper's are 50 45.
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
from torch.utils.data import Dataset

from fgplugins.data.classes import check_same_classes
from fgplugins.errors import UserError, one_line
from fgplugins.methods.art import RestrictionSchedule
from fgplugins.utils.command_line import main_guard
from fgplugins.zoo_timm.checkpoints import check_same_method, check_weights, read_checkpoint
from fgplugins.zoo_timm.composed import ComposedModel
from fgplugins.zoo_timm.data import RunData
from fgplugins.zoo_timm.task import MethodTask, classification_task

__all__ = ['main']


class _Epochs:
    """Tells the task which epoch begins: timm's script says it to the training data.

    Args:
        schedule: of the task.
    """

    def __init__(self, schedule: RestrictionSchedule | None = None) -> None:
        self.schedule = schedule
        self.task: MethodTask | None = None

    def __reduce__(self) -> tuple:
        return _Epochs, ()  # processes that load images need no network

    def begin(self, own: Callable[[int], None] | None, epoch: int) -> None:
        """An epoch begins; what the data themselves make of it is theirs."""
        if own is not None:
            own(epoch)
        if self.task is not None:
            self.task.set_epoch(epoch)

    def create_dataset(self, data: RunData, *args: Any, **kwargs: Any) -> Dataset:
        """`RunData.create_dataset`, told of epochs where there is a schedule."""
        dataset = data.create_dataset(*args, **kwargs)
        if self.schedule is not None:
            dataset.set_epoch = functools.partial(self.begin, getattr(dataset, 'set_epoch', None))
        return dataset


def _task(
    data: RunData, epochs: _Epochs, model: nn.Module, *args: Any, **kwargs: Any
) -> TrainingTask:
    """The training task, whose checkpoints say what the data's classes are called."""
    data.check_number(getattr(model, 'num_classes', None))
    try:
        task = classification_task(model, *args, restriction_schedule=epochs.schedule, **kwargs)
    except ValueError as error:
        if epochs.schedule is None:
            raise
        raise UserError(one_line(error)) from error
    task.class_names = data.classes
    epochs.task = None if epochs.schedule is None else task
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


def _own_arguments(arguments: list[str]) -> tuple[RestrictionSchedule | None, list[str]]:
    """The schedule, if one is given before the script, and the script with its arguments.

    Raises:
        UserError: unless two fitting numbers and a script follow the option.
    """
    option = '--restriction-schedule'
    if arguments[0] != option:
        return None, arguments
    try:
        begin, period = (int(value) for value in arguments[1:3])
        schedule = RestrictionSchedule(begin, period)
    except ValueError as error:
        given = ' '.join(arguments[1:3])
        raise UserError(
            f'{option} {given}: give two whole numbers, BEGIN at least 0 and PERIOD at least 1, as '
            '50 45'
        ) from error
    if len(arguments) < 4:
        raise UserError(f"{option} {begin} {period}: give the path of timm's train.py behind it")
    return schedule, arguments[3:]


def main() -> None:
    """Put our data and training task in the place of timm's, and run its script."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ('-h', '--help'):
        print(__doc__)
        return
    schedule, arguments = _own_arguments(arguments)
    script = Path(arguments[0])
    if not script.is_file():
        raise UserError(f"{arguments[0]!r} is not a file: give the path of timm's train.py first")
    if 'ClassificationTask(' not in script.read_text(encoding='utf-8', errors='replace'):
        raise UserError(
            f'{script} does not train through timm.task.ClassificationTask: take the train.py of '
            f'timm {timm.__version__}'
        )
    data, epochs = RunData(), _Epochs(schedule)
    timm.data.create_dataset = functools.partial(epochs.create_dataset, data)
    timm.task.ClassificationTask = functools.partial(_task, data, epochs)
    resume = timm.task.resume_task_checkpoint
    timm.task.resume_task_checkpoint = functools.partial(_resume, data, resume)
    sys.argv = arguments
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
    main_guard(main)
