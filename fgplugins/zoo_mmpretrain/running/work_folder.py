"""The folder of a run: held by one run at a time, and found again wherever it was moved."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from fgplugins.errors import UserError

__all__ = [
    'checkpoint_number',
    'is_result',
    'is_run',
    'latest_checkpoint',
    'move_earlier_run',
    'only_run_in',
    'saved_configs',
]

LAST = 'last_checkpoint'  # mmengine's file; it holds the path that the checkpoint was saved to
LOCK = '.fgplugins.lock'
RUN = re.compile(r'\d{8}_\d{6}(_\d+)?')  # the folder of a run's log, named by its time
CHECKPOINT = re.compile(r'(epoch|iter)_(\d+)\.pth')
RESULTS = ('best_*.pth', 'epoch_*.pth', 'iter_*.pth', LAST, 'attention_maps.png')


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint in a folder, wherever the folder was when it was saved.

    Returns:
        The one that the run named last, or else the one of the highest number; None without any.
    """
    folder, saved = Path(folder), ''
    if (folder / LAST).is_file():
        saved = (folder / LAST).read_text(encoding='utf-8', errors='replace').strip()
        here = folder / re.split(r'[\\/]', saved)[-1]
        if here.is_file():
            return here
    numbered = {}
    for file in folder.glob('*.pth') if folder.is_dir() else ():
        match = CHECKPOINT.fullmatch(file.name)
        if match:
            numbered[int(match[2]), file.stat().st_mtime] = file
    if numbered:
        return numbered[max(numbered)]
    return Path(saved) if saved and Path(saved).is_file() else None  # CheckpointHook(out_dir=...)


def checkpoint_number(file: Path) -> int | None:
    """The epoch or iteration in a checkpoint's name, as of ``best_accuracy_top1_epoch_7.pth``."""
    match = re.search(r'(?:epoch|iter)_(\d+)\.pth$', file.name)
    return int(match[1]) if match else None


def saved_configs(folder: str | Path) -> dict[str, bytes]:
    """The configs in a folder by name, which a new run may overwrite."""
    files = Path(folder).glob('*.py') if Path(folder).is_dir() else ()
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def is_result(file: Path) -> bool:
    """Whether a file's name is of those that a run writes and the next one sets aside."""
    return any(file.match(pattern) for pattern in RESULTS)


def is_run(folder: str | Path) -> bool:
    """Whether a folder is a run's."""
    return (Path(folder) / LAST).is_file()


def move_earlier_run(folder: str | Path, configs: dict[str, bytes], running: str) -> Path | None:
    """Move the checkpoints and pictures of an earlier run into its folder, named by its time.

    The folder that holds the run's log is taken where there is one; else a new one.

    Args:
        folder: of the runs.
        configs: `saved_configs` of before the new run wrote its own.
        running: name of the folder that holds the new run's log.

    Returns:
        The folder, or None if there was nothing to move.
    """
    folder = Path(folder)
    found = sorted(f for f in folder.iterdir() if f.is_file() and is_result(f))
    if not found:
        return None
    runs = sorted(
        f for f in folder.iterdir() if f.is_dir() and RUN.fullmatch(f.name) and f.name != running
    )
    if runs and not any((runs[-1] / f.name).exists() for f in found):
        aside = runs[-1]
    else:
        newest = datetime.fromtimestamp(max(f.stat().st_mtime for f in found))
        name, count = f'{newest:%Y%m%d_%H%M%S}', 1
        aside = folder / name
        while aside.exists():
            aside, count = folder / f'{name}_{count}', count + 1
        aside.mkdir()
    for file in found:
        shutil.move(file, aside / file.name)
    for name, content in configs.items():
        (aside / name).write_bytes(content)
    return aside


@contextmanager
def only_run_in(folder: str | Path) -> Iterator[None]:
    """Hold a folder for one run; the system lets go of it however the run ends.

    Raises:
        UserError: if another run holds it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f'--work-dir {folder}: another run is writing there: wait for it, or give another one'
        ) from None
    try:
        yield
    finally:
        lock.release()
