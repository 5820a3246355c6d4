"""Small pictures of images, as bytes of WebP files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from fgplugins.data.images import open_image

__all__ = ['encode', 'thumbnails']

SIDE = 144  # pixels of a thumbnail's longer side
VIEW = 384  # of a network's view of an image, at most
QUALITY = 72
CHUNK = 64  # images between two calls of progress


def encode(picture: np.ndarray | Image.Image, side: int = VIEW) -> bytes:
    """A picture's bytes, no side longer than that.

    Args:
        picture: (H, W, 3) or (H, W, 1) bytes, or an image.
        side: pixels.
    """
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
    picture = picture.convert('RGB')
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, 'WEBP', quality=QUALITY, method=4)
    return file.getvalue()


def thumbnails(
    paths: Sequence[str], workers: int, progress: Callable[[int, int], None]
) -> list[bytes]:
    """Thumbnails of image files.

    Args:
        paths: the files.
        workers: threads that read them.
        progress: called with the number of images done and of all.

    Raises:
        UserError: if one cannot be read.
    """
    found: list[bytes] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), CHUNK):
            found += pool.map(lambda path: encode(open_image(path), SIDE),
                              paths[start : start + CHUNK])  # fmt: skip
            progress(len(found), len(paths))
    return found
