"""Text files in whichever encoding they come, and their lines."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from fgplugins.data.images import printable
from fgplugins.errors import UserError

__all__ = ['read_lines', 'read_text']

MARKS = (
    (codecs.BOM_UTF8, 'utf-8-sig'),
    (codecs.BOM_UTF32_LE, 'utf-32'),  # before UTF-16's, which begins alike
    (codecs.BOM_UTF32_BE, 'utf-32'),
    (codecs.BOM_UTF16_LE, 'utf-16'),
    (codecs.BOM_UTF16_BE, 'utf-16'),
)


def read_text(path: str | Path) -> str:
    """A text file, whichever encoding it is in.

    A byte-order mark decides; then UTF-8 is tried, then GB18030 for Chinese and cp1252 for western
    names. Chinese characters have two bytes or four, most of them high, while western letters with
    an accent stand alone.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f'{printable(path)} cannot be read: {error.strerror}') from None
    high = re.findall(rb'[\x80-\xff]+', content)
    in_pairs = sum(len(run) for run in high if len(run) > 1) > sum(map(len, high)) / 2
    encodings = [encoding for mark, encoding in MARKS if content.startswith(mark)]
    encodings += ['utf-8', *(['gb18030'] if in_pairs else []), 'cp1252']
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode('latin-1')


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file that are not empty, without spaces around them."""
    lines = (line.strip() for line in re.split(r'[\r\n]+', read_text(path)))
    return [line for line in lines if line]
