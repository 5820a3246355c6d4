"""Pictures of a classifier's attention, drawn after training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from fgplugins.methods import NoClassMap
from fgplugins.networks.gates import gates_of
from fgplugins.utils.drawing import attention_titles, describe, draw_attention
from fgplugins.utils.lettering import shortened
from fgplugins.utils.modes import in_testing
from fgplugins.zoo_mmpretrain.colours import as_rgb, dataset_gives_bgr, innermost, picture_pipeline
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.registry import HOOKS, register

__all__ = ['AttentionMapHook', 'draw_samples', 'images_of', 'tested_weights']


class AttentionMapHook(Hook):
    """After training, draws the attention maps of some test images into the work directory.

    They are those of the weights that were tested: the averages, if there is an ``EMAHook``.

    Args:
        num_images: how many images, evenly spaced over the test split.
        file_name: name of the PNG.
    """

    priority = 'LOW'

    def __init__(self, num_images: int = 8, file_name: str = 'attention_maps.png') -> None:
        self.num_images, self.file_name = num_images, file_name

    @master_only
    def after_train(self, runner: Runner) -> None:
        if runner.val_loop is None:
            runner.logger.info('no validation data, so no attention maps are drawn')
            return
        dataset = runner.val_dataloader.dataset
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        head = getattr(model, 'head', None)
        if not isinstance(head, MethodHead):
            name = type(head or model).__name__
            runner.logger.info(f'{name} has no attention, so no attention maps are drawn')
            return
        count = min(self.num_images, len(dataset))
        indices = [i * len(dataset) // count for i in range(count)]
        samples = [dataset[i] for i in indices]
        names = dataset.metainfo.get('classes')
        path = Path(runner.work_dir) / self.file_name
        images = images_of(dataset, indices, samples, bool(model.data_preprocessor.to_rgb))
        try:
            with tested_weights(runner):
                draw_samples(model, samples, images, names, path)
        except NoClassMap as error:
            runner.logger.info(f'no attention maps are drawn: {error}')
            return
        runner.logger.info(f'attention maps of {count} test images: {path}')


@contextmanager
def tested_weights(runner: Runner) -> Iterator[None]:
    """Inside, the model has the weights that validation tests: averages, if there are any.

    Afterwards it has its own again.
    """
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for hook in averages:
        hook.before_val_epoch(runner)
    try:
        yield
    finally:
        for hook in averages:
            hook.after_val_epoch(runner)


def images_of(
    dataset: object, indices: list[int], samples: list[dict], to_rgb: bool
) -> list[np.ndarray]:
    """The pictures of some samples, as bytes (H, W, 3), red first.

    Args:
        dataset: mmengine's, or one that wraps such ones.
        indices: which of its images.
        samples: what its pipeline gives for them.
        to_rgb: whether the model turns the order of colours.
    """
    pictures = picture_pipeline(getattr(innermost(dataset), 'pipeline', None))
    if pictures is None:
        bgr = dataset_gives_bgr(dataset, to_rgb)
        return [as_rgb(sample['inputs'], bgr) for sample in samples]
    shown = [pictures(dataset.get_data_info(i)) for i in indices]
    return [as_rgb(sample['inputs'], bgr=True) for sample in shown]


def draw_samples(
    model: torch.nn.Module,
    samples: list[dict],
    images: list[np.ndarray],
    classes: list[str] | None,
    path: Path,
) -> None:
    """Draw the attention of a classifier with a method's head over samples of its test pipeline.

    Args:
        model: left as it is.
        samples: what the pipeline gives.
        images: their pictures, as bytes, red first.
        classes: their names; numbers if None.
        path: the PNG to write.
    """

    def name(label: int) -> str:
        return shortened(classes[label] if classes else label)

    maps, captions = [], []
    with in_testing(model):
        for sample in samples:
            batch = {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}
            inputs = model.data_preprocessor(batch, training=False)['inputs']
            scores, masks = model.head.show(model, inputs)
            share = scores.sigmoid() if model.head.method.multi_label else scores.softmax(dim=1)
            label = int(scores.argmax(dim=1))
            maps.append([level[0].float().cpu().numpy() for level in masks])
            truth = [name(int(t)) for t in sample['data_samples'].get('gt_label', [])]
            predicted = [('', name(label), float(share[0, label]))]
            captions.append(describe(predicted, ', '.join(truth)))
    names = model.head.method.name_heads()
    titles = attention_titles(maps[0], len(gates_of(model.backbone)), names)
    draw_attention(images, maps, captions, path, titles=titles)


register(HOOKS, AttentionMapHook)
