"""Tables for people and for spreadsheets: text, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgplugins.errors import UserError

__all__ = ['Table', 'format_of', 'to_csv', 'write_text']

FORMATS = {'.txt': 'text', '.md': 'markdown', '.json': 'json', '.csv': 'csv'}


@dataclass
class Table:
    """A title, a header, and rows of text or numbers; whole numbers are printed with commas.

    Attributes:
        title: above the table; none if empty.
        header: one name a column.
        rows: one value a column; None is left blank.
        left: how many columns stand on the left; the others are numbers.
    """

    title: str
    header: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list)
    left: int = 1

    def _cells(self) -> list[list[str]]:
        return [list(self.header), *([_cell(value) for value in row] for row in self.rows)]

    def text(self) -> str:
        """Columns set by spaces."""
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            '  '.join(
                cell.ljust(width) if i < self.left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return '\n'.join([self.title, *lines] if self.title else lines)

    def markdown(self) -> str:
        """A Markdown table, under its title."""
        header, *rows = self._cells()
        rule = ['---' if i < self.left else '---:' for i in range(len(header))]
        lines = [f'| {" | ".join(row)} |' for row in (header, rule, *rows)]
        return '\n'.join([f'### {self.title}', '', *lines] if self.title else lines)


def _cell(value: object) -> str:
    if value is None:
        return ''
    if isinstance(value, int) and not isinstance(value, bool):
        return f'{value:,}'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def to_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV, a header first."""
    out = io.StringIO()
    csv.writer(out, lineterminator='\n').writerows([header, *rows])
    return out.getvalue()


def format_of(path: str) -> str:
    """The format that a file's ending names.

    Raises:
        UserError: if it names none.
    """
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise UserError(f'--out {path!r}: the ending must be one of {", ".join(FORMATS)}')
    return FORMATS[suffix]


def write_text(option: str, path: str, text: str) -> None:
    """Write a file that the user named.

    Raises:
        UserError: if it cannot be written, naming the option.
    """
    try:
        Path(path).write_text(text, encoding='utf-8')
    except OSError as error:
        raise UserError(f'{option} {path!r} cannot be written: {error.strerror}') from None
