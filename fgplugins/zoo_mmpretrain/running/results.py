"""What a test says beyond its metrics: each class, what is taken for what, and every error."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmpretrain.evaluation import ConfusionMatrix
from rich.cells import cell_len

from fgplugins.data.images import printable, read_image
from fgplugins.utils.lettering import shortened
from fgplugins.utils.result_pictures import draw_confusion, draw_sheet
from fgplugins.zoo_mmpretrain.colours import innermost

__all__ = ['Prediction', 'Predictions', 'Results', 'report']

PRINTED = 10  # classes and pairs on the terminal
DRAWN = 24  # misclassified images in a picture
FILES = (
    'per_class.csv',
    'confusion_matrix.csv',
    'confusion_matrix.png',
    'confused_pairs.csv',
    'misclassified.csv',
    'misclassified.png',
)


class Prediction(NamedTuple):
    """One test image: its file (None for arrays), its place in the data, and what was said."""

    file: str | None
    index: int | None
    truth: int
    predicted: int
    score: float


class Predictions(BaseMetric):
    """Keeps what is predicted of every image, from whichever process; it has no number of its own.

    Attributes:
        dataset: the test data; set by whoever runs the test.
        found: after the test, in the first process, by the order of the data.
        num_classes: of the scores.
        skipped: why there is nothing, where the images have several classes each, or none.
    """

    default_prefix = 'predictions'

    def __init__(self) -> None:
        super().__init__()
        self.dataset: object = None
        self.found: list[Prediction] = []
        self.num_classes, self.skipped = 0, ''

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            truth, scores = sample.get('gt_label'), sample.get('pred_score')
            if 'gt_score' in sample or truth is None or len(truth) != 1 or scores is None:
                self.results.append(None)
                continue
            predicted = int(scores.argmax())
            self.results.append(
                (sample.get('img_path'), sample.get('sample_idx'), int(truth[0]), predicted,
                 float(scores[predicted]), len(scores))
            )  # fmt: skip

    def compute_metrics(self, results: list) -> dict:
        if not results or None in results:
            self.skipped = 'they are of images with one class each'
        else:
            self.found = [Prediction(*kept) for *kept, _ in results]
            self.num_classes = results[0][-1]
        return {}


class Results:
    """What the predictions of a test add up to.

    Args:
        predictions: of every image.
        classes: their names.

    Attributes:
        counts: the confusion matrix (Y, Y): row, the true class; column, the predicted one.
        wrong: the misclassified images, the surest first.
    """

    def __init__(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.counts: np.ndarray = ConfusionMatrix.calculate(
            [p.predicted for p in predictions], [p.truth for p in predictions], len(classes)
        ).numpy()
        wrong = [p for p in predictions if p.predicted != p.truth]
        self.wrong = sorted(wrong, key=lambda p: -p.score)

    def per_class(self) -> list[tuple[str, int, int, float, str, int]]:
        """Of each class that has images, the worst first.

        Returns:
            Its name, how many are right, of how many, the percentage, and for what most of the
            others are taken and how many: '' and 0 where none is.
        """
        rows = []
        for y, row in enumerate(self.counts):
            total, right = int(row.sum()), int(row[y])
            if total:
                others = row.copy()
                others[y] = 0
                rival = int(others.argmax())
                taken = (self.classes[rival], int(others[rival])) if others[rival] else ('', 0)
                rows.append((self.classes[y], right, total, 100 * right / total, *taken))
        return sorted(rows, key=lambda row: (row[3], -row[2]))

    def pairs(self) -> list[tuple[str, str, int, int]]:
        """True class, predicted class, how often, of how many images; the most frequent first."""
        found = [
            (self.classes[i], self.classes[j], int(self.counts[i, j]), int(self.counts[i].sum()))
            for i, j in zip(*self.counts.nonzero(), strict=True)
            if i != j
        ]
        return sorted(found, key=lambda pair: (-pair[2], pair[3]))

    def write(self, folder: Path, dataset: object) -> list[Path]:
        """Write the tables and pictures, over those of an earlier test.

        Args:
            folder: made if need be.
            dataset: the test data, which holds the images that are no files.

        Returns:
            The files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        header = 'class', 'right', 'images', 'accuracy', 'most_often_taken_for', 'times'
        rows = [(c, r, n, f'{a:.2f}', rival, k) for c, r, n, a, rival, k in self.per_class()]
        _write_csv(folder / FILES[0], header, rows)
        matrix = zip(self.classes, self.counts.tolist(), strict=True)
        _write_csv(
            folder / FILES[1],
            ('true \\ predicted', *self.classes),
            [(name, *counts) for name, counts in matrix],
        )
        draw_confusion(self.counts, self.classes, folder / FILES[2])
        _write_csv(folder / FILES[3], ('truth', 'prediction', 'times', 'images'), self.pairs())
        names = self.classes
        _write_csv(
            folder / FILES[4],
            ('file', 'truth', 'prediction', 'score'),
            [(_name(p), names[p.truth], names[p.predicted], f'{p.score:.4f}') for p in self.wrong],
        )
        self._draw_wrong(folder / FILES[5], dataset)
        return [folder / name for name in FILES if (folder / name).exists()]

    def _draw_wrong(self, path: Path, dataset: object) -> None:
        images, captions = [], []
        for p in self.wrong[:DRAWN]:
            image = _image(p, dataset)
            if image is not None:
                images.append(image)
                said = f'{self.classes[p.predicted]} ({100 * p.score:.0f} %)'
                name = Path(p.file).name if p.file else f'image {p.index}'
                captions.append([said, f'true: {self.classes[p.truth]}', name])
        if images:
            draw_sheet(images, captions, path)


def report(predictions: Predictions, folder: Path) -> list[Path]:
    """Print the worst classes and what is most often taken for what; write all into a folder.

    Args:
        predictions: after the test.
        folder: made if need be.

    Returns:
        The files that are written.
    """
    if predictions.skipped:
        print(f'note: no tables by class and no misclassified images: {predictions.skipped}')
        return []
    names = (getattr(predictions.dataset, 'metainfo', None) or {}).get('classes') or ()
    count = predictions.num_classes
    if len(names) != count:
        names = [str(y) for y in range(count)]
    found = Results(predictions.found, names)
    rows = found.per_class()
    print(f"mean of the classes' accuracies: {sum(row[3] for row in rows) / len(rows):.2f} %")
    if found.wrong:
        _print_classes(rows)
        _print_pairs(found.pairs())
    files = found.write(folder, predictions.dataset)
    print(f'\n{len(found.wrong)} of {len(predictions.found)} images are misclassified')
    print(f'results: {folder}: ' + ', '.join(file.name for file in files))
    return files


def _print_classes(rows: list[tuple[str, int, int, float, str, int]]) -> None:
    shown = [row for row in rows if row[3] < 100][:PRINTED]
    more = f' ({len(shown)} of {len(rows)})' if len(shown) < len(rows) else ''
    print(f'\naccuracy of each class, worst first{more}:')
    _print_table(
        ('class', 'right', 'accuracy', 'most often taken for'),
        [
            (c, f'{right} of {n}', f'{a:.2f} %', f'{rival} ({k})' if k else '')
            for c, right, n, a, rival, k in shown
        ],
    )


def _print_pairs(pairs: list[tuple[str, str, int, int]]) -> None:
    more = f' ({PRINTED} of {len(pairs)})' if len(pairs) > PRINTED else ''
    print(f'\nmost confused{more}:')
    _print_table(
        ('truth', 'prediction', 'times'),
        [(truth, taken, f'{k} of {n}') for truth, taken, k, n in pairs[:PRINTED]],
    )


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what is in them; names are shortened."""
    lines = [[shortened(printable(cell), 36) for cell in row] for row in (header, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (c + ' ' * (w - cell_len(c)) for c, w in zip(line, widths, strict=True))
        print('  ' + '  '.join(padded).rstrip())


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    # names of files need not be UTF-8
    with path.open('w', encoding='utf-8', errors='backslashreplace', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _name(prediction: Prediction) -> str:
    """The file of an image, or its place in data without files."""
    return prediction.file or str(prediction.index)


def _image(prediction: Prediction, dataset: object) -> np.ndarray | None:
    """An image as it is before the pipeline, red first; None where its data do not tell."""
    if prediction.file is not None:
        return read_image(prediction.file) if Path(prediction.file).is_file() else None
    single = innermost(dataset) is dataset and hasattr(dataset, 'get_data_info')
    image = dataset.get_data_info(prediction.index).get('img') if single else None
    if not isinstance(image, np.ndarray):
        return None
    return image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
