"""What validation images choose: the best checkpoint (``--save-best``) and the end of a training.

The test images choose nothing: a config that looks at them while training is refused.
"""

from __future__ import annotations

from mmengine.config import Config, ConfigDict

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.datasets import FineGrainedImages
from fgplugins.zoo_mmpretrain.running.settings import innermost_datasets, short_type

__all__ = ['drop_early_stop', 'main_score', 'set_choices', 'shown_score', 'validates_on_test']

LEAST_GAIN = 1e-6  # of a score; mmengine counts an equal one as better if this is 0
# metrics whose higher score is the better one: their prefix and that score
SCORES = {
    'Accuracy': ('accuracy', 'top{}'),
    'AveragePrecision': ('multi-label', 'mAP'),
    'VOCAveragePrecision': ('multi-label', 'mAP'),
    'MultiLabelAUC': ('multi-label', 'AUC'),
}


def validates_on_test(cfg: Config) -> bool:
    """Whether the images that a training looks at after every epoch are those of the test."""
    val, test = (_data(cfg, split) for split in ('val', 'test'))
    return any(d.get('split') == 'test' or _images(d) in map(_images, test) for d in val)


def main_score(cfg: Config) -> str | None:
    """The score that validation is judged by, as ``accuracy/top1``; None if it is not known."""
    evaluator = cfg.get('val_evaluator') or []
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
        prefix, name = SCORES.get(short_type(metric), (None, ''))
        thresholds = metric.get('thrs')
        one = not isinstance(thresholds, (list, tuple)) or len(thresholds) == 1
        if prefix and one and metric.get('average', 'macro') == 'macro':
            topk = metric.get('topk', 1)
            best = min(topk) if isinstance(topk, (list, tuple)) else topk
            return f'{metric.get("prefix") or prefix}/{name.format(best)}'
    return None


def shown_score(name: str, value: float) -> str:
    """A score for people, as ``top-1 95.10 %``."""
    if name.startswith('accuracy/top'):
        return f'top-{name.removeprefix("accuracy/top")} {value:.2f} %'
    return f'{name} {value:.2f}'


def set_choices(cfg: Config, save_best: bool, patience: int | None) -> None:
    """Let the validation images choose the best checkpoint, or when to stop.

    Args:
        cfg: changed in place; what ``--cfg-options`` set stays.
        save_best: keep the checkpoint of the best epoch besides the last ones.
        patience: validations in a row without a better score, after which to stop; or None.

    Raises:
        UserError: if the images are those of the test, or there are none, or no score is known.
    """
    if not save_best and patience is None:
        return
    option = '--save-best' if save_best else f'--early-stop {patience}'
    if patience is not None and patience < 1:
        raise UserError(f'--early-stop {patience}: must be a whole number, 1 or more')
    if not cfg.get('val_dataloader'):
        raise UserError(f'{option}: nothing is validated: leave out --no-validate')
    if validates_on_test(cfg):
        raise UserError(
            f'{option}: this config looks at the test images after every epoch, and these must '
            f'not choose: {_other_images(cfg)}'
        )
    score = main_score(cfg)
    if score is None:
        raise UserError(
            f'{option}: which score of val_evaluator is the one to go by is not known: '
            f'known are those of {", ".join(SCORES)}'
        )
    if save_best:
        hooks = cfg.get('default_hooks') or ConfigDict()
        hooks.checkpoint = hooks.get('checkpoint') or ConfigDict(type='CheckpointHook', interval=1)
        if not hooks.checkpoint.get('save_best'):
            hooks.checkpoint.update(save_best=score, rule='greater')
        cfg.default_hooks = hooks
    if patience is not None:
        hook = dict(
            type='EarlyStoppingHook', monitor=score, rule='greater', min_delta=LEAST_GAIN,
            patience=patience,
        )  # fmt: skip
        drop_early_stop(cfg)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), ConfigDict(hook)]


def drop_early_stop(cfg: Config) -> None:
    """Leave out mmengine's hook that stops early: in a test it would build the training's data."""
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [h for h in hooks if short_type(h) != 'EarlyStoppingHook']


def _data(cfg: Config, split: str) -> list[ConfigDict]:
    loader = cfg.get(f'{split}_dataloader')
    return innermost_datasets(loader.dataset) if loader else []


def _images(dataset: ConfigDict) -> dict:
    """What says which images a data set has."""
    return {k: v for k, v in dataset.items() if k not in ('pipeline', 'test_mode', 'lazy_init')}


def _other_images(cfg: Config) -> str:
    val = _data(cfg, 'val')
    if all(short_type(dataset) == FineGrainedImages.__name__ for dataset in val):
        return '--val-share 0.1 keeps a tenth of the training images for that'
    if all('split' in dataset for dataset in val):
        return 'add --cfg-options val_dataloader.dataset.split=val'
    return 'give val_dataloader other images'
