"""Pictures of a test's results: the confusion matrix, and a sheet of misclassified images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fgplugins.utils.lettering import lettering, need_matplotlib, shortened

__all__ = ['draw_confusion', 'draw_sheet']

DPI = 100
TITLE = 0.35  # inches
WITH_NUMBERS = 30  # classes whose cells have room for their counts
MOST_CLASSES = 250  # that a picture has room for
RIGHT, WRONG = np.array((31, 90, 160)), np.array((190, 30, 30))  # colours of a whole row's images


def draw_confusion(counts: np.ndarray, classes: Sequence[str], path: str | Path) -> Path:
    """Draw a confusion matrix: a row's share on the diagonal in blue, off it in red.

    Red deepens with the square root of the share, so that one image in fifty is seen. Of very many
    classes, those are drawn that most errors are made with.

    Args:
        counts: (Y, Y) whole numbers: row, the true class; column, the predicted one.
        classes: their names.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        UserError: if matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    title = 'row: true class, column: prediction'
    if len(counts) > MOST_CLASSES:
        wrong = counts - np.diag(counts.diagonal())
        errors = wrong.sum(axis=0) + wrong.sum(axis=1)
        worst = np.sort(np.argsort(-errors, kind='stable')[:MOST_CLASSES])
        title += f'; the {MOST_CLASSES} of {len(counts)} classes with the most errors'
        counts, classes = counts[np.ix_(worst, worst)], [classes[i] for i in worst]
    Y, colours = len(counts), _colours(counts)
    cell = 0.6 if Y <= 12 else 0.36 if Y <= WITH_NUMBERS else 0.22 if Y <= 60 else 0.13  # inches
    size = min(9.0, 72 * cell * 0.75)  # of letters, in points
    names = [shortened(name, 32) for name in classes]
    far = Y > WITH_NUMBERS  # names on the other two sides too, where the first are far away
    with lettering(names) as write:
        figure = Figure(dpi=DPI)
        renderer = FigureCanvasAgg(figure).get_renderer()
        written = [write(name) for name in names]
        font = FontProperties(size=size)
        widths = [renderer.get_text_width_height_descent(n, font, False)[0] for n in written]
        margin, side = max(widths) / DPI + 0.2, cell * Y
        other = margin if far else 0.2
        width, height = max(margin + side + other, 4.5), margin + side + other + TITLE
        figure.set_size_inches(width, height)
        axis = figure.add_axes((margin / width, other / height, side / width, side / height))
        axis.imshow(colours, interpolation='nearest')
        figure.text(0.1 / width, 1 - TITLE / 2 / height, title, fontsize=9, va='center')
        axis.set_xticks([])
        axis.set_yticks([])
        away = (
            0.5 + 0.06 / cell
        )  # texts of its own: matplotlib's ticks take seconds for 200 classes
        for y, name in enumerate(written):
            axis.text(-away, y, name, ha='right', va='center', fontsize=size)
            axis.text(y, -away, name, ha='center', va='bottom', rotation=90, fontsize=size)
            if far:
                axis.text(Y - 1 + away, y, name, ha='left', va='center', fontsize=size)
                axis.text(y, Y - 1 + away, name, ha='center', va='top', rotation=90, fontsize=size)
        edges = np.arange(0.5, Y - 1)
        for lines in (axis.hlines, axis.vlines):
            lines(edges, -0.5, Y - 0.5, color='0.88', linewidth=0.5)
        if Y <= WITH_NUMBERS:
            dark_cells = colours.mean(axis=2) < 160
            for i, j in zip(*counts.nonzero(), strict=True):
                axis.text(j, i, str(counts[i, j]), ha='center', va='center', fontsize=size,
                          color='white' if dark_cells[i, j] else 'black')  # fmt: skip
        figure.savefig(path)
    return Path(path)


def _colours(counts: np.ndarray) -> np.ndarray:
    """The cells' colours (Y, Y, 3) in bytes, white where there is nothing."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(counts), dtype=bool)
    strength = np.where(diagonal, shares, np.sqrt(shares))[..., None]
    full = np.where(diagonal[..., None], RIGHT, WRONG)
    return np.rint(255 + strength * (full - 255)).astype(np.uint8)


def draw_sheet(
    images: Sequence[np.ndarray], captions: Sequence[Sequence[str]], path: str | Path
) -> Path:
    """Draw images side by side, in rows of six, each with a few short lines under it.

    Args:
        images: (H, W, 3), (H, W, 1) or (H, W) bytes, red first.
        captions: of each image, as many lines as of every other.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        UserError: if matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(6, len(images))
    rows = -(-len(images) // columns)
    tile, gap, line = 1.9, 0.1, 0.13  # inches
    tall = tile + line * len(captions[0]) + gap
    width, height = columns * (tile + gap) + gap, rows * tall + gap
    with lettering([text for lines in captions for text in lines]) as write:
        figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        for i, (image, lines) in enumerate(zip(images, captions, strict=True)):
            row, column = divmod(i, columns)
            left, bottom = gap + column * (tile + gap), height - gap - row * tall - tile
            axis = figure.add_axes((left / width, bottom / height, tile / width, tile / height))
            axis.set_axis_off()
            axis.set_anchor('S')
            axis.imshow(image.squeeze(), cmap='gray', vmin=0, vmax=255)
            for k, text in enumerate(lines):
                below = bottom - line * (k + 0.6)
                figure.text(left / width, below / height, write(shortened(text, 36)),
                            fontsize=7, va='center')  # fmt: skip
        figure.savefig(path)
    return Path(path)
