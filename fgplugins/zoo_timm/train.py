r"""Run timm's own training script with the models and losses of this package.

    python -m fgplugins.zoo_timm.train path/to/timm/train.py --data-dir birds --model warn \
        --model-kwargs backbone=resnet18 --num-classes 100 ...

Every argument after the script is timm's. The script is not part of timm's wheel; take it from
timm's repository, at the version that is installed. A model that is not composed of a method trains
as it always does.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import timm.task

import fgplugins  # noqa: F401  (registers the models)
from fgplugins.cli import main_guard
from fgplugins.errors import UserError
from fgplugins.zoo_timm.task import classification_task

__all__ = ['main']


def main() -> None:
    """Put the training task in place and hand over."""
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
    timm.task.ClassificationTask = classification_task
    sys.argv = arguments
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
    main_guard(main)
