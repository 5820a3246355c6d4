"""Boxes around what an image shows, and the text files that hold them.

A box is (left, top, right, bottom) in pixels of the image as it is stored, from zero, right and
bottom exclusive: ``image[top:bottom, left:right]``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from fgplugins.data.images import printable
from fgplugins.data.text_files import read_lines
from fgplugins.errors import UserError

__all__ = ['Box', 'boxes_of', 'outward', 'read_boxes']

Box = tuple[int, int, int, int]


def outward(left: Fraction, top: Fraction, right: Fraction, bottom: Fraction) -> Box:
    """The smallest box of whole pixels that holds one with fractions."""
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def read_boxes(path: Path, form: str, header: bool = False) -> list[tuple[str, list[Fraction]]]:
    """The rows of a text file of boxes: an image and four numbers, with spaces or commas between.

    Args:
        path: the file.
        form: how a row looks, for messages, as 'img x1 y1 x2 y2'.
        header: whether the first row is of names.

    Raises:
        UserError: naming the file and the first line that is not of the form.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        if header and number == 1:
            continue
        image, *words = re.split(r'[\s,]+', line)
        try:
            # fractions are exact: a box to 0.1 + 0.2 ends where one to 0.3 does
            numbers = [Fraction(word) for word in words]
        except (ValueError, ZeroDivisionError):
            numbers = []
        if len(numbers) != 4:
            raise UserError(f'{printable(path)}, line {number}: {line!r} is not "{form}"')
        rows.append((image, numbers))
    return rows


def boxes_of(images: Sequence[str], boxes: dict[str, Box], path: Path) -> list[Box]:
    """The box of each image, by the image's name in the file of boxes.

    Raises:
        UserError: naming the first image without one.
    """
    missing = next((image for image in images if image not in boxes), None)
    if missing is not None:
        raise UserError(
            f'{printable(path)} has no box of image {printable(missing)}: add it, or remove the '
            'file to do without boxes'
        )
    return [boxes[image] for image in images]
