"""What a comparison is going to write, and whether the disk has as much left."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from fgplugins.compare.cells import Cell
from fgplugins.errors import UserError
from fgplugins.zoo_timm import ComposedModel

__all__ = ['check_disk', 'checkpoint_bytes']

SPARE = 1.05  # times what is written must be free
STATES = 3  # a checkpoint to go on with: the weights, and two averages of each by AdamW
KEPT = 3  # such checkpoints of a cell that runs, while a new one is written


def checkpoint_bytes(
    models: Mapping[tuple[str, str], ComposedModel], cells: Sequence[Cell], places: int
) -> int:
    """The bytes of the checkpoints of cells that train whole networks, while they run at the most.

    Args:
        models: by backbone and row.
        cells: that are to be trained.
        places: how many run at a time.
    """
    sizes = {
        key: sum(values.numel() * values.element_size() for values in model.state_dict().values())
        for key, model in models.items()
    }
    of_cells = [sizes[cell.backbone, cell.method] for cell in cells]
    running = KEPT * STATES * min(places, len(cells)) * max(of_cells, default=0)
    return sum(of_cells) + running


def check_disk(root: Path, needed: Mapping[str, int], freed: int, advice: Collection[str]) -> None:
    """Refuse what does not fit.

    Args:
        root: folder of the comparison, which need not be there.
        needed: bytes of each thing that is written.
        freed: bytes of files that are replaced.
        advice: what would need less.

    Raises:
        UserError: if the disk has not that many left.
    """
    there = root.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free + freed
    total = sum(needed.values())
    if total * SPARE > free:
        parts = ', '.join(f'{what} {size / 1e9:.1f} GB' for what, size in needed.items())
        raise UserError(
            f'--out {root}: {parts}; {free / 1e9:.1f} GB are free: another --out, or '
            f'{", ".join(advice)}'
        )
