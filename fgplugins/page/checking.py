"""What the check of a comparison's folder found; kept, for the images seldom change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fgplugins.compare.comparison import parts_of, split_path
from fgplugins.compare.jobs import read_json, write_json
from fgplugins.data.duplicates import NEAR
from fgplugins.data.folder_check import check_folder
from fgplugins.errors import UserError, one_line

__all__ = ['KEPT', 'checked_folder']

KEPT = 'folder_check.json'  # in the report


def checked_folder(
    root: Path, workers: int, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """The findings of the check, as `FolderCheck.as_json` has them; 'reason' if there are none.

    Args:
        root: folder of the comparison.
        workers: threads that decode images.
        progress: called with the number of images seen and of all.
    """
    digest, kept = _digest(root), root / 'report' / KEPT
    known = read_json(kept) or {}
    if known.get('digest') == digest:
        return known
    try:
        found = check_folder(str(split_path(root)), NEAR, workers, progress).as_json()
    except UserError as error:  # for want of an extra
        return {'reason': one_line(error), 'findings': []}
    kept_part = {key: found[key] for key in ('sizes', 'findings')}
    write_json(kept, {'digest': digest, **kept_part})
    return kept_part


def _digest(root: Path) -> str:
    """Changes with the split, and with any image's size or time."""
    files = []
    for part, found in parts_of(root).items():
        for path in found.images:
            stat = Path(path).stat()
            files.append([part, Path(path).name, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps([NEAR, files]).encode()).hexdigest()[:16]
