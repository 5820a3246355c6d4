"""Metrics that MMPretrain lacks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmpretrain.structures import label_to_onehot

from fgplugins.zoo_mmpretrain.registry import METRICS, register

__all__ = ['MultiLabelAUC']


class MultiLabelAUC(BaseMetric):
    """Area under the ROC curve of each class, averaged over the classes; in percent.

    A class that no image of the split has, or that all have, has no curve: it is left out of the
    mean, and the log names it. Labels that the data mark as difficult (``gt_label_difficult``, as
    in VOC, where the pipeline packs it) count neither way, as in MMPretrain's own metrics of VOC.

    Args:
        average: 'macro' for the mean; None for a list of the classes' own, NaN where there is none.
        **kwargs: mmengine's: ``collect_device``, ``prefix``, ...

    Raises:
        ValueError: if ``average`` is anything else.
    """

    default_prefix = 'multi-label'

    def __init__(self, average: str | None = 'macro', **kwargs: object) -> None:
        super().__init__(**kwargs)
        if average not in ('macro', None):
            raise ValueError(f"MultiLabelAUC: average={average!r}: must be 'macro' or None")
        self.average = average

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keep the scores and the labels: 1 present, 0 absent, -1 difficult."""
        for sample in data_samples:
            scores = sample['pred_score'].cpu()
            if 'gt_score' in sample:
                labels = (sample['gt_score'] > 0.5).long().cpu()
            else:
                labels = label_to_onehot(sample['gt_label'].cpu(), len(scores)).clamp(max=1)
            for label in sample.get('gt_label_difficult') or ():
                if labels[label] == 0:  # the image has no other, easier, instance of the class
                    labels[label] = -1
            self.results.append((scores, labels))

    def compute_metrics(self, results: list[tuple[torch.Tensor, torch.Tensor]]) -> dict:
        """``AUC``, or ``AUC_classwise``."""
        from sklearn.metrics import roc_auc_score  # takes seconds to import, and few runs need it

        scores = torch.stack([s for s, _ in results]).double().numpy()
        labels = torch.stack([y for _, y in results]).numpy()
        values, absent = [], []
        for y in range(labels.shape[1]):
            known = labels[:, y] >= 0
            present = labels[known, y]
            if len(set(present.tolist())) < 2:
                absent.append(y)
                values.append(float('nan'))
            else:
                values.append(100 * float(roc_auc_score(present, scores[known, y])))
        if absent:
            names = (self.dataset_meta or {}).get('classes') or [str(y) for y in range(len(values))]
            MMLogger.get_current_instance().warning(
                f'MultiLabelAUC: no image, or every image, has '
                f'{", ".join(names[y] for y in absent)}: left out; the other '
                f'{len(values) - len(absent)} of {len(values)} classes count'
            )
        if self.average is None:
            return {'AUC_classwise': values}
        found = [value for y, value in enumerate(values) if y not in absent]
        return {'AUC': sum(found) / len(found) if found else float('nan')}


register(METRICS, MultiLabelAUC)
