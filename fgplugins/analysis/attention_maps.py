"""Pictures of where a method looks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from fgplugins.errors import UserError

__all__ = ['draw_attention', 'draw_images', 'resize_map']


def resize_map(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask (h, w) stretched to [0, 1] and resized bilinearly to (height, width)."""
    low, high = float(mask.min()), float(mask.max())
    scaled = (mask - low) / (high - low) if high > low else np.zeros_like(mask)
    tensor = torch.from_numpy(np.ascontiguousarray(scaled, np.float32))[None, None]
    return F.interpolate(tensor, (height, width), mode='bilinear', align_corners=False)[
        0, 0
    ].numpy()


def draw_attention(
    images: Sequence[np.ndarray],
    maps: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    path: str | Path,
    max_heads: int = 8,
    first_title: str = 'predicted (true)',
    titles: Sequence[Sequence[str]] | None = None,
) -> Path:
    """One row an image: the image, then each head of each level laid over it. Saved as PNG.

    Every mask is stretched to its own range, so that a row shows where each head looks, not how
    strongly.

    Args:
        images: (H, W, 3) or (H, W, 1) bytes, RGB.
        maps: for each image, for each level, masks (K, h, w).
        captions: a line under each image.
        path: the PNG to write.
        max_heads: at most this many heads of a level are drawn.
        first_title: above the column of images.
        titles: above each head of each level; numbers if None.

    Returns:
        The path.

    Raises:
        UserError: if matplotlib is not installed.
    """
    columns = [
        (level, head)
        for level, masks in enumerate(maps[0])
        for head in range(min(len(masks), max_heads))
    ]
    figure, axes = _tiles(len(images), len(columns) + 1)
    for row, (image, levels, caption) in enumerate(zip(images, maps, captions, strict=True)):
        height, width = image.shape[:2]
        grey = image.mean(axis=2)
        axes[row, 0].imshow(image.squeeze(2) if image.shape[2] == 1 else image, cmap='gray')
        axes[row, 0].set_xlabel(_wrap(caption, axes), fontsize=7)
        for column, (level, head) in enumerate(columns, 1):
            axis = axes[row, column]
            axis.imshow(grey, cmap='gray')
            mask = resize_map(levels[level][head], height, width)
            axis.imshow(mask, cmap='turbo', alpha=0.55, vmin=0, vmax=1)
            if row == 0:
                number = f'level {level + 1}, head {head + 1}'
                title = titles[level][head] if titles else number
                axis.set_title(_wrap(title, axes), fontsize=7)
    axes[0, 0].set_title(first_title, fontsize=7)
    return _save(figure, axes, path)


def draw_images(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    titles: Sequence[str],
    path: str | Path,
) -> Path:
    """A table of images, saved as PNG.

    Args:
        rows: of images (H, W, 3) or (H, W, 1) in bytes.
        captions: a line under the first image of each row.
        titles: above each column.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        UserError: if matplotlib is not installed.
    """
    figure, axes = _tiles(len(rows), len(titles))
    for row, (images, caption) in enumerate(zip(rows, captions, strict=True)):
        for axis, image in zip(axes[row], images, strict=True):
            axis.imshow(image.squeeze(2) if image.shape[2] == 1 else image, cmap='gray')
        axes[row, 0].set_xlabel(_wrap(caption, axes), fontsize=7)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=7)
    return _save(figure, axes, path)


def _wrap(text: str, axes: np.ndarray) -> str:
    """A text in lines that are no wider than a tile."""
    width = round(13 * _side(axes.shape[1]))  # letters
    return '\n'.join(textwrap.fill(line, width) for line in text.split('\n'))


def _side(columns: int) -> float:
    """Side of a tile in inches."""
    return 1.2 if columns > 9 else 1.8


def _tiles(rows: int, columns: int) -> tuple[object, np.ndarray]:
    """A figure and its axes."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("pictures need matplotlib: pip install 'fgplugins[demo]'") from None
    tile = _side(columns)
    figure = Figure(figsize=(tile * columns, (tile + 0.25) * rows + 0.3), dpi=80)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: object, axes: np.ndarray, path: str | Path) -> Path:
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout(pad=0.3)
    figure.savefig(path)
    return Path(path)
