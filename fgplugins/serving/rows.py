"""A table written row by row, so that what is done is kept, however the work ends."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from fgplugins.serving.predicting import Prediction

__all__ = ['PredictionFile']


class PredictionFile:
    """A CSV of predictions: a file's name, its likeliest class and the next ones, or the reason.

    Rows go to ``<name>.partial``, which takes the name when all are there. If the work ends before,
    it stays.

    Args:
        path: of the file.
        classes: their names.
        top_k: how many of them a row has.
    """

    def __init__(self, path: str | Path, classes: Sequence[str], top_k: int) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(f'{self.path.name}.partial')
        self.classes, self.top_k = classes, top_k
        self.rows = self.errors = 0

    def __enter__(self) -> PredictionFile:
        # names of files can hold bytes that are not UTF-8: they are written as they are
        self.file = self.partial.open('w', newline='', encoding='utf-8', errors='surrogateescape')
        self.writer = csv.writer(self.file)
        names = ['class', 'score']
        for k in range(2, self.top_k + 1):
            names += [f'class_{k}', f'score_{k}']
        self.writer.writerow(['file', *names, 'error'])
        return self

    def add(self, files: Iterable[str], predictions: Iterable[Prediction]) -> None:
        """Write a row for each file."""
        for file, one in zip(files, predictions, strict=True):
            cells: list[str] = []
            for label, score in zip(one.labels, one.scores, strict=True):
                cells += [self.classes[label], f'{score:.6f}']
            cells += [''] * (2 * self.top_k - len(cells))
            self.writer.writerow([file, *cells, one.error])
            self.rows += 1
            self.errors += bool(one.error)
        self.file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.file.close()
        if kind is None:
            self.partial.replace(self.path)
        elif self.rows == 0:
            self.partial.unlink()
