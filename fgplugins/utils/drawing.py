"""Pictures of where a method looks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from fgplugins.utils.lettering import lettering, need_matplotlib

__all__ = [
    'attention_titles',
    'describe',
    'draw_attention',
    'draw_images',
    'lay_over',
    'resize_map',
]

FONT_SIZE, LINE_SPACING, MAX_LINES = 7, 1.3, 16
DPI, GAP = 100, 0.06  # inches
MAX_HEIGHT = 4000  # pixels of a page
MAX_COLUMNS = 40  # of a page, the image's included
OPACITY = 0.55  # of a map's colours
TEXT = {'fontsize': FONT_SIZE, 'linespacing': LINE_SPACING}


def resize_map(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask (h, w) stretched to [0, 1] and resized bilinearly to (height, width)."""
    low, high = float(mask.min()), float(mask.max())
    scaled = (mask - low) / (high - low) if high > low else np.zeros_like(mask)
    tensor = torch.from_numpy(np.ascontiguousarray(scaled, np.float32))[None, None]
    return F.interpolate(tensor, (height, width), mode='bilinear', align_corners=False)[
        0, 0
    ].numpy()


def lay_over(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A mask (h, w) in colours over a grey image, each stretched to its own range.

    Args:
        image: (H, W, 3) or (H, W, 1) bytes.
        mask: of any size.

    Returns:
        Bytes (H, W, 3).

    Raises:
        UserError: if matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib import colormaps

    height, width = image.shape[:2]
    grey = resize_map(image.mean(axis=2), height, width)[..., None]
    colours = colormaps['turbo'](resize_map(mask, height, width))[..., :3]
    return np.rint(255 * ((1 - OPACITY) * grey + OPACITY * colours)).astype(np.uint8)


def attention_titles(
    masks: Sequence[np.ndarray],
    gates: int = 0,
    names: Sequence[Sequence[str]] = (),
    prefix: str = '',
) -> list[list[str]]:
    """A title above each head of each level.

    Args:
        masks: of each level, (K, h, w).
        gates: how many of them, at first, are not a method's levels but the network's own gates.
        names: of each level's heads; numbers where there are none.
        prefix: before each.
    """
    numbers = [''] if gates == 1 else [f' {i + 1}' for i in range(gates)]
    titles = [[f'{prefix}gate{number}'] for number in numbers]
    for level, heads in enumerate(masks[gates:]):
        known = list(names[level]) if level < len(names) else []
        known += [f'head {head + 1}' for head in range(len(known), len(heads))]
        titles.append([f'{prefix}level {level + 1}, {name}' for name in known[: len(heads)]])
    return titles


def describe(predictions: Sequence[tuple[str, str, float]], truth: str = '', file: str = '') -> str:
    """What stands under an image: its file, what was predicted by whom, and its true class.

    Args:
        predictions: of each model its name ('' if it is alone), the class and its score in [0, 1].
        truth: the true class, where it is known.
        file: name of the file.
    """
    lines = [file] if file else []
    for who, label, score in predictions:
        lines.append(f'{f"{who} predicted" if who else "predicted"}: {label}, {score:.0%}')
    return '\n'.join([*lines, f'true: {truth}'] if truth else lines)


def draw_attention(
    images: Sequence[np.ndarray],
    maps: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    path: str | Path,
    max_heads: int = 8,
    titles: Sequence[Sequence[str]] | None = None,
) -> list[Path]:
    """Draw each image in a row, followed by each head of each level laid over it.

    Every mask is stretched to its own range, so that a row shows where each head looks, not how
    strongly. Of what is wider than a page the last heads of each level are left out, with a note.

    Args:
        images: (H, W, 3) or (H, W, 1) bytes, RGB.
        maps: of each image, of each level, the masks (K, h, w).
        captions: the lines under each image, as `describe` gives them.
        path: the PNG to write; further pages are numbered, as ``maps_2.png``.
        max_heads: at most this many heads of a level are drawn.
        titles: above each head of each level, as `attention_titles` gives them.

    Returns:
        The pages.

    Raises:
        UserError: if matplotlib is not installed.
    """
    drawn = min(max_heads, max(len(masks) for masks in maps[0]))
    while drawn > 1 and sum(min(len(m), drawn) for m in maps[0]) > MAX_COLUMNS - 1:
        drawn -= 1
    if drawn < min(max_heads, max(len(masks) for masks in maps[0])):
        logging.getLogger(__name__).warning(f'pictures: {drawn} heads of each level fit on a page')
    columns = [
        (level, head)
        for level, masks in enumerate(maps[0])
        for head in range(min(len(masks), drawn))
    ]
    titles = titles or attention_titles(maps[0])
    headings = ['image'] + [titles[level][head] for level, head in columns]

    def draw(row: int, column: int, axis: object) -> None:
        image = images[row]
        if column == 0:
            axis.imshow(_shown(image), cmap='gray')
            return
        level, head = columns[column - 1]
        axis.imshow(lay_over(image, maps[row][level][head]))

    return _draw_table(draw, [_ratio([i]) for i in images], captions, headings, path)


def draw_images(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    titles: Sequence[str],
    path: str | Path,
) -> list[Path]:
    """Draw a table of images.

    Args:
        rows: the images (H, W, 3) or (H, W, 1) of each row, in bytes.
        captions: the lines under each row.
        titles: above each column.
        path: the PNG to write; further pages are numbered.

    Returns:
        The pages.

    Raises:
        UserError: if matplotlib is not installed.
    """

    def draw(row: int, column: int, axis: object) -> None:
        axis.imshow(_shown(rows[row][column]), cmap='gray')

    return _draw_table(draw, [_ratio(row) for row in rows], captions, titles, path)


def _shown(image: np.ndarray) -> np.ndarray:
    return image.squeeze(2) if image.shape[2] == 1 else image


def _ratio(images: Sequence[np.ndarray]) -> float:
    """Height of a row of images, as a share of their width; 1 at most."""
    return min(1.0, max(image.shape[0] / image.shape[1] for image in images))


def _draw_table(
    draw: Callable[[int, int, object], None],
    ratios: Sequence[float],
    captions: Sequence[str],
    titles: Sequence[str],
    path: str | Path,
) -> list[Path]:
    """Draw a table of tiles, each row as high as its images and its caption are.

    Args:
        draw: (row, column, axis) -> nothing; draws a tile.
        ratios: height of each row's tiles, as a share of their width.
        captions: see `draw_images`.
        titles: likewise.
        path: likewise.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tile = 1.2 if len(titles) > 9 else 1.8  # inches
    side, line, width = tile - 2 * GAP, FONT_SIZE * LINE_SPACING / 72, tile * len(titles)
    with lettering([*captions, *titles]) as write:
        canvas = FigureCanvasAgg(Figure(dpi=DPI))
        above = [_wrap(write(title), side * DPI, canvas) for title in titles]
        # a caption runs on below the other tiles of its row
        below = [_wrap(write(caption), (width - 2 * GAP) * DPI, canvas) for caption in captions]
        top = max(map(len, above)) * line + 2 * GAP
        heights = [side * r + len(c) * line + 4 * GAP for r, c in zip(ratios, below, strict=True)]
        pages = _split(heights, MAX_HEIGHT / DPI - top)
        path = Path(path)
        files = [path, *(path.with_stem(f'{path.stem}_{i}') for i in range(2, len(pages) + 1))]
        for file, rows in zip(files, pages, strict=True):
            height = top + sum(heights[row] for row in rows)
            figure = Figure((width, height), dpi=DPI)
            FigureCanvasAgg(figure)
            place = height - top
            for row in rows:
                bottom = place - side * ratios[row]
                place -= heights[row]
                for column, heading in enumerate(above):
                    left = column * tile + GAP
                    axis = figure.add_axes(
                        (left / width, bottom / height, side / width, side * ratios[row] / height)
                    )
                    axis.set_anchor('N')
                    axis.set_xticks([])
                    axis.set_yticks([])
                    draw(row, column, axis)
                    if row == rows[0]:
                        axis.set_title('\n'.join(heading), **TEXT, pad=2)
                    if column == 0:
                        figure.text(
                            left / width,
                            (bottom - GAP / 2) / height,
                            '\n'.join(below[row]),
                            verticalalignment='top',
                            **TEXT,
                        )
            figure.savefig(file)
    return files


def _split(heights: Sequence[float], room: float) -> list[list[int]]:
    """The numbers of the rows of each page, as many as it has room for."""
    pages: list[list[int]] = [[]]
    for row, height in enumerate(heights):
        if pages[-1] and sum(heights[i] for i in pages[-1]) + height > room:
            pages.append([])
        pages[-1].append(row)
    return pages


def _wrap(text: str, width: float, canvas: object) -> list[str]:
    """Break a text into lines at most ``width`` pixels wide, between words if possible.

    If these are more than `MAX_LINES`, the middle ones are left out.
    """
    lines = [line for part in text.split('\n') for line in _fill(part, width, canvas)]
    if len(lines) <= MAX_LINES:
        return lines
    head = MAX_LINES // 2
    return [*lines[:head], '…', *lines[len(lines) - (MAX_LINES - head - 1) :]]


def _fill(text: str, width: float, canvas: object) -> list[str]:
    from matplotlib.font_manager import FontProperties

    font, renderer = FontProperties(size=FONT_SIZE), canvas.get_renderer()

    def fits(part: str) -> bool:
        return renderer.get_text_width_height_descent(part, font, ismath=False)[0] <= width

    lines = []
    while text and not fits(text):
        count = 1
        while fits(text[: count + 1]):
            count += 1
        words = max(text.rfind(mark, 0, count) for mark in ' _-/') + 1
        count = words if words > count // 2 else count
        lines.append(text[:count].rstrip())
        text = text[count:].lstrip()
    return [*lines, text]
