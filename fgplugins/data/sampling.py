"""A few images of many, spread over their folders, and the class that a folder's name tells."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

__all__ = ['spread_over_folders', 'true_class']


def spread_over_folders(files: Sequence[str], limit: int, seed: int = 0) -> list[str]:
    """As many files of every folder as of any other, as far as that goes; in their own order.

    Args:
        files: without repetition.
        limit: at most this many are taken.
        seed: of the choice of files in a folder, and of folders where there are more than files.
    """
    generator, folders = random.Random(seed), {}
    for file in sorted(files):  # the choice does not depend on the order given
        folders.setdefault(Path(file).parent, []).append(file)
    for inside in folders.values():
        generator.shuffle(inside)
    order = list(folders.values())
    generator.shuffle(order)
    in_turn = (file for file in chain(*zip_longest(*order)) if file is not None)
    chosen = {file for file, _ in zip(in_turn, range(limit), strict=False)}
    return [file for file in files if file in chosen]


def true_class(file: str | Path, classes: Sequence[str]) -> str | None:
    """The class that a file's folder is named by, as ``ducks/mallard``; None if it is by none.

    Args:
        file: whose folder it is.
        classes: names of all.
    """
    known, parts = set(classes), Path(file).absolute().parent.parts
    names = ('/'.join(parts[start:]) for start in range(len(parts)))  # the longest first
    return next((name for name in names if name in known), None)
