"""Pictures of a classifier's attention, drawn after training and, if asked for, during it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from PIL import Image

from fgplugins.methods import NoClassMap
from fgplugins.networks.gates import gates_of
from fgplugins.utils.drawing import attention_titles, describe, draw_attention
from fgplugins.utils.lettering import shortened
from fgplugins.utils.modes import in_testing
from fgplugins.zoo_mmpretrain.colours import as_rgb, dataset_gives_bgr, innermost, picture_pipeline
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.registry import HOOKS, register
from fgplugins.zoo_mmpretrain.running.choosing import validates_on_test

__all__ = ['AttentionMapHook', 'draw_samples', 'images_of', 'tested_weights']


class AttentionMapHook(Hook):
    """After training, draws the attention maps of some validation images into the work directory.

    They are those of the weights that were tested: the averages, if there is an ``EMAHook``. The
    images are the same every time; where a config validates on the test images, they are of these.

    Args:
        num_images: how many images, evenly spaced over the split.
        file_name: name of the PNG.
        interval: also draw them after the validations of every so many epochs (or iterations, where
            the training counts those), and hand them to the visualizer under the file's name.
    """

    priority = 'LOW'

    def __init__(
        self,
        num_images: int = 8,
        file_name: str = 'attention_maps.png',
        interval: int | None = None,
    ) -> None:
        self.num_images, self.file_name, self.interval = num_images, file_name, interval
        self.is_training = False

    def before_train(self, runner: Runner) -> None:
        self.is_training = True

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, object] | None = None) -> None:
        if self.interval is None or not self.is_training:
            return
        by_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
        step = runner.iter if by_iterations else runner.epoch
        if step % self.interval == 0:
            for page in self.draw(runner):
                picture = np.asarray(Image.open(page).convert('RGB'))
                runner.visualizer.add_image(page.stem, picture, step=step)

    @master_only
    def after_train(self, runner: Runner) -> None:
        if runner.val_loop is None:
            runner.logger.info('no validation data, so no attention maps are drawn')
        else:
            self.draw(runner)

    def draw(self, runner: Runner) -> list[Path]:
        """Draw the maps of the weights as they are; gives the pages, none where there is no map."""
        dataset = runner.val_dataloader.dataset
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        head = getattr(model, 'head', None)
        if not isinstance(head, MethodHead):
            name = type(head or model).__name__
            runner.logger.info(f'{name} has no attention, so no attention maps are drawn')
            return []
        count = min(self.num_images, len(dataset))
        indices = [i * len(dataset) // count for i in range(count)]
        samples = [dataset[i] for i in indices]
        names = dataset.metainfo.get('classes')
        path = Path(runner.work_dir) / self.file_name
        images = images_of(dataset, indices, samples, bool(model.data_preprocessor.to_rgb))
        try:
            with tested_weights(runner):
                pages = draw_samples(model, samples, images, names, path)
        except NoClassMap as error:
            runner.logger.info(f'no attention maps are drawn: {error}')
            return []
        which = 'test' if validates_on_test(runner.cfg) else 'validation'
        runner.logger.info(f'attention maps of {count} {which} images: {path}')
        return pages


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
) -> list[Path]:
    """Draw the attention of a classifier with a method's head over samples of its test pipeline.

    Args:
        model: left as it is.
        samples: what the pipeline gives.
        images: their pictures, as bytes, red first.
        classes: their names; numbers if None.
        path: the PNG to write.

    Returns:
        The pages.
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
    return draw_attention(images, maps, captions, path, titles=titles)


register(HOOKS, AttentionMapHook)
