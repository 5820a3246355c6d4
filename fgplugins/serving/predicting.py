"""Probabilities of the classes, file by file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fgplugins.errors import UserError, one_line
from fgplugins.serving.files import Batch, load_files
from fgplugins.utils.loaded import LoadedModel

__all__ = ['Prediction', 'predict', 'probabilities']


@dataclass
class Prediction:
    """What is said of one file.

    Attributes:
        labels: of the likeliest classes, likeliest first; none for a file that cannot be read.
        scores: their probabilities.
        error: why the file cannot be read.
    """

    labels: list[int]
    scores: list[float]
    error: str = ''


def probabilities(scores: Tensor, multi_label: bool = False) -> Tensor:
    """Probabilities (N, Y) of scores (N, Y).

    The softmax is right for all methods. Scores that are logarithms of probabilities already are
    what they were, for softmax(log p) = p; those of `warn`, which mixes log-probabilities, sum to
    less than one before and to one afterwards.

    Args:
        scores: of a model.
        multi_label: an image can have several classes, each of a probability of its own.
    """
    scores = scores.float()
    return scores.sigmoid() if multi_label else scores.softmax(dim=1)


def predict(
    loaded: LoadedModel, paths: Sequence[str], batch_size: int, workers: int, top_k: int
) -> Iterator[list[Prediction]]:
    """Predictions of files, batch by batch, in their order.

    Args:
        loaded: the model, on its device.
        paths: the files.
        batch_size: files in a batch.
        workers: processes that read files.
        top_k: how many classes are named of each.

    Raises:
        UserError: if the model does not run on what the pipeline gives, or memory is short.
    """
    model, prepared = loaded.model, loaded.prepare()
    multi_label = loaded.method is not None and loaded.method.multi_label
    on_gpu = next(model.parameters()).device.type == 'cuda'
    loader = load_files(paths, prepared.read, batch_size, workers, pin_memory=on_gpu)

    def likeliest(images: Tensor) -> tuple[list[list[float]], list[list[int]]]:
        p = probabilities(model(prepared.finish(images)), multi_label)
        values, labels = p.topk(min(top_k, p.shape[1]), dim=1)
        return values.tolist(), labels.tolist()

    def of_batch(batch: Batch) -> list[Prediction]:
        groups, unreadable = batch
        found = {index: Prediction([], [], reason) for index, reason in unreadable}
        for indices, images in groups:
            for index, values, labels in zip(indices, *likeliest(images), strict=True):
                found[index] = Prediction(labels, values)
        return [found[index] for index in sorted(found)]

    try:
        for batch in loader:
            with torch.inference_mode():
                predictions = of_batch(batch)
            yield predictions
    except torch.OutOfMemoryError as error:
        raise UserError(
            f'--batch-size {batch_size}: {one_line(error, 80)}: a smaller one would work'
        ) from None
    except RuntimeError as error:
        if 'DataLoader worker' in str(error):
            raise UserError(
                f'--workers {workers}: a process that reads images ended ({one_line(error, 120)}): '
                'fewer of them, or 0, would work'
            ) from None
        raise
