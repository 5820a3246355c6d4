"""The process that measures costs: ``python -m fgplugins.compare.run_costs FOLDER``.

``FOLDER/../..`` is the comparison's; ``FOLDER/rows.json`` says of which rows on which backbone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from fgplugins.compare.comparison import parts_of
from fgplugins.compare.cost import measure_costs
from fgplugins.compare.jobs import read_json, write_json
from fgplugins.utils.command_line import main_guard

__all__ = ['run']


def run(folder: Path) -> None:
    """Measure what ``rows.json`` asks for, and write ``result.json``.

    Args:
        folder: in a comparison's ``costs``.
    """
    root, asked = folder.parent.parent, read_json(folder / 'rows.json')
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())))
    num_classes = len(parts_of(root)['train'].classes)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    rows, done = asked['rows'], 0

    def note(line: str) -> None:
        nonlocal done
        print(line, flush=True)
        content = {'epoch': done, 'epochs': len(rows), 'seconds': 0.0}
        write_json(folder / 'progress.json', content)
        done += 1

    costs = measure_costs(root, asked['backbone'], rows, num_classes, device, note)
    write_json(folder / 'result.json', {'rows': rows, 'costs': costs})


def main() -> None:
    run(Path(sys.argv[1]))


if __name__ == '__main__':
    main_guard(main)
