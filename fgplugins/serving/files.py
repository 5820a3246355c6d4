"""The image files that a user names, and what loads them in batches, whatever is wrong with one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fgplugins.data import images
from fgplugins.errors import UserError, one_line

__all__ = ['Batch', 'default_batch_size', 'default_workers', 'find_files', 'load_files']

# the images of one size, each with its place among all files; and why others cannot be read
Batch = tuple[list[tuple[list[int], Tensor]], list[tuple[int, str]]]


def find_files(names: Sequence[str]) -> list[tuple[str, str]]:
    """The image files among files and folders, in order, none of them twice.

    A file that is named is taken whatever it is called. In a folder, at any depth, hidden files and
    what systems leave behind are passed over, as in training.

    Args:
        names: of files and folders.

    Returns:
        The path of each, and its path inside the folder that was named.

    Raises:
        UserError: if a name is not there, or a folder has no images.
    """
    found: dict[str, str] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = [str(f.path / image) for f in images.walk(path) for image in f.images]
            if not inside:
                raise UserError(f'no images in {images.printable(name)}')
            for file in sorted(inside):
                found.setdefault(file, os.path.relpath(file, path))
        elif path.is_file():
            found.setdefault(name, path.name)
        else:
            raise UserError(f'image {images.printable(name)!r} is not there')
    return list(found.items())


def default_batch_size(device: str) -> int:
    """How many images go through a network at a time, on a type of device.

    On a CPU a few: maps of many are too large for memory that has just been freed to be used again,
    and every layer then asks the system for new pages. tf_efficientnet_lite0 took a third of the
    time with 8 that it took with 64.
    """
    return 8 if device == 'cpu' else 64


def default_workers() -> int:
    """How many processes load images: one for each core that this one may use, 8 at most."""
    allowed = getattr(os, 'sched_getaffinity', None)
    return min(len(allowed(0)) if allowed else os.cpu_count() or 1, 8)


class _Files(Dataset):
    """Image files, read one by one; one that cannot be read is the reason for that."""

    def __init__(self, paths: Sequence[str], read: Callable[[str], Tensor]) -> None:
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        path = self.paths[index]
        try:
            return index, self.read(path)
        except UserError as error:
            reason = one_line(error).removeprefix(f'image {images.printable(path)} ')
            reason = reason.removeprefix('cannot be read: ')
            return index, reason.removesuffix('; replace or remove it')
        except Exception as error:  # of any step of a pipeline
            return index, one_line(error, 300)


def _gather(found: list[tuple[int, Tensor | str]]) -> Batch:
    """Images of one size side by side: padding one to another's would change its scores."""
    by_size: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for index, image in found:
        if not isinstance(image, str):
            by_size.setdefault(tuple(image.shape), []).append((index, image))
    groups = [
        ([index for index, _ in group], default_collate([image for _, image in group]))
        for group in by_size.values()
    ]
    return groups, [(index, image) for index, image in found if isinstance(image, str)]


def _start_worker(_: int) -> None:
    """Ctrl-C is the main process's to hear; a worker is one of several, and takes one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if 'cv2' in sys.modules:
        sys.modules['cv2'].setNumThreads(0)


def load_files(
    paths: Sequence[str],
    read: Callable[[str], Tensor],
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
) -> DataLoader:
    """Batches of image files in order.

    Args:
        paths: the files.
        read: path -> image (C, H, W).
        batch_size: files in a batch.
        workers: processes that read; 0 reads in this one.
        pin_memory: for copies to a GPU.
    """
    return DataLoader(
        _Files(paths, read),
        batch_size,
        num_workers=min(workers, -(-len(paths) // batch_size)),
        collate_fn=_gather,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
    )
