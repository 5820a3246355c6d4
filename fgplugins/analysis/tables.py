"""Tables for people and for spreadsheets: text, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

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
        left: how many columns, from the first, are aligned on the left; the others on the right.
    """

    title: str
    header: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list)
    left: int = 1

    def text(self) -> str:
        """Columns set by spaces."""
        # as one more row, the header makes no column wider than it is
        return self._lay_out([self.header, *self.rows], self.title, tablefmt='plain')

    def markdown(self) -> str:
        """A Markdown table, under its title."""
        title = f'### {self.title}\n' if self.title else ''
        return self._lay_out(self.rows, title, headers=self.header, tablefmt='pipe')

    def without(self, names: Collection[str]) -> Table:
        """The table but for some columns."""
        kept = [i for i, name in enumerate(self.header) if name not in names]
        rows = [[row[i] for i in kept] for row in self.rows]
        left = sum(i < self.left for i in kept)
        return Table(self.title, [self.header[i] for i in kept], rows, left)

    def _lay_out(self, rows: list[Sequence[object]], title: str, **how: object) -> str:
        aligned = ['left' if i < self.left else 'right' for i in range(len(self.header))]
        cells = [[_cell(value) for value in row] for row in rows]
        table = tabulate(cells, colalign=aligned, disable_numparse=True, **how)
        return f'{title}\n{table}' if title else table


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
    """The format of a file by its ending.

    Raises:
        UserError: for another ending.
    """
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise UserError(f'--out {path!r}: the ending must be one of {", ".join(FORMATS)}')
    return FORMATS[suffix]


def write_text(option: str, path: str, text: str) -> None:
    """Write a file that the user named by an option.

    Raises:
        UserError: if it cannot be written; the message names the option.
    """
    try:
        Path(path).write_text(text, encoding='utf-8')
    except OSError as error:
        raise UserError(f'{option} {path!r} cannot be written: {error.strerror}') from None
