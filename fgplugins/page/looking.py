"""Where the rows of a comparison look: masks of test images, small enough for a page."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fgplugins.compare.best import checkpoint_of
from fgplugins.errors import one_line
from fgplugins.methods import NoClassMap
from fgplugins.page.reading import Comparison, Row
from fgplugins.serving.files import default_batch_size
from fgplugins.serving.models import load_trained
from fgplugins.utils.drawing import attention_titles
from fgplugins.utils.loaded import LoadedModel

__all__ = ['RowMaps', 'look', 'packed']

SIDE = 32  # cells of a mask, at most
HEADS = 8  # of a level that are kept


class RowMaps:
    """The masks of a row.

    Args:
        reason: why there are none, or ''.
        rival_reason: why there are none of a class against another, or ''.

    Attributes:
        of_image: by place of the image, what its script says: 'levels', and 'rivals' or nothing.
        views: the image as the network sees it, by place, in bytes.
    """

    def __init__(self, reason: str = '', rival_reason: str = '') -> None:
        self.reason, self.rival_reason = reason, rival_reason
        self.of_image: dict[int, dict[str, Any]] = {}
        self.views: dict[int, np.ndarray] = {}


def packed(mask: np.ndarray) -> dict[str, Any]:
    """A mask (h, w), stretched to its own range, in 256 steps: height, width, base64 of bytes.

    One of many cells is averaged down to `SIDE` a side.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
    size = [min(side, SIDE) for side in mask.shape]
    small = F.adaptive_avg_pool2d(tensor, size)[0, 0].numpy()
    low, high = float(small.min()), float(small.max())
    scaled = (small - low) / (high - low) if high > low else np.zeros_like(small)
    cells = np.rint(255 * scaled).astype(np.uint8)
    return {'h': size[0], 'w': size[1], 'cells': base64.b64encode(cells.tobytes()).decode()}


def look(
    comparison: Comparison,
    row: Row,
    places: Sequence[int],
    device: torch.device,
    progress: Callable[[int, int], None],
) -> RowMaps:
    """Compute the masks of a row's shown run.

    Args:
        comparison: that it is of.
        row: with a finished run.
        places: of the test images.
        device: to compute on.
        progress: called with the number of images done and of all.
    """
    try:
        loaded = _open(comparison, row)
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # removed, or its backbone
        return RowMaps(f'its checkpoint cannot be read: {one_line(error, 200)}')
    loaded.model.to(device)
    asks = 'classes' in loaded.method.questions
    found = RowMaps(
        rival_reason='' if asks else f'the maps of {row.method} are not those of a single class'
    )
    size = default_batch_size(device.type)
    for start in range(0, len(places), size):
        batch = list(places[start : start + size])
        read = [loaded.read_image(comparison.images[place]) for place in batch]
        found.views |= {place: shown for place, (shown, _) in zip(batch, read, strict=True)}
        inputs = [given.to(device) for _, given in read]
        try:
            for place, levels in zip(batch, _levels_of(loaded, inputs), strict=True):
                found.of_image[place] = {'levels': levels}
            for place, given in zip(batch, inputs, strict=True) if asks else ():
                classes = _against(row, place, int(comparison.labels[place]))
                names = [comparison.classes[label] for label in classes]
                (levels,) = _levels_of(loaded, [given], names, classes=classes)
                found.of_image[place]['rivals'] = levels
        except (NoClassMap, ValueError) as error:
            return RowMaps(one_line(error, 300), found.rival_reason)
        progress(start + len(batch), len(places))
    return found


def _open(comparison: Comparison, row: Row) -> LoadedModel:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'row.pth')
        checkpoint_of(row.cell, comparison.root, comparison.classes, file)
        return load_trained(str(file))


def _against(row: Row, place: int, truth: int) -> list[int]:
    """The true class, and of the others that with the highest score."""
    scores = row.scores[place].copy()
    scores[truth] = -np.inf
    return [truth, int(scores.argmax())]


def _levels_of(
    loaded: LoadedModel, inputs: Sequence[Tensor], names: Sequence[str] = (), **asked: object
) -> list[list[dict[str, Any]]]:
    """The masks of some images, level by level, with the names of the heads.

    Args:
        loaded: the model.
        inputs: the images, (1, C, H, W) each.
        names: of the heads, where they are asked for.
        **asked: of the method's `questions`.
    """
    if len({given.shape for given in inputs}) > 1:  # a pipeline that crops nothing
        return [_levels_of(loaded, [given], names, **asked)[0] for given in inputs]
    _, masks = loaded.look(torch.cat(list(inputs)), **asked)
    stacks = [level.float().cpu().numpy() for level in masks]
    known = [names] * len(stacks) if names else loaded.method.name_heads()
    titles = attention_titles([stack[0] for stack in stacks], loaded.gates, known)
    return [
        [
            {
                'of': stack.shape[1],
                'heads': [
                    {'title': title, **packed(mask)}
                    for title, mask in zip(of_level[:HEADS], stack[i, :HEADS], strict=True)
                ],
            }
            for stack, of_level in zip(stacks, titles, strict=True)
        ]
        for i in range(len(inputs))
    ]
