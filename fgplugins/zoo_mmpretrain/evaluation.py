"""Ways to test a trained model: several views of an image, whole images, the terms of the loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS, TRANSFORMS

from fgplugins.errors import UserError
from fgplugins.utils.modes import in_testing
from fgplugins.zoo_mmpretrain.classifier import FineGrainedClassifier
from fgplugins.zoo_mmpretrain.running.errors import user_errors
from fgplugins.zoo_mmpretrain.running.settings import innermost_datasets, short_type

__all__ = ['mean_terms', 'set_deployed', 'set_tta', 'set_uncropped']


def set_deployed(cfg: Config) -> None:
    """Leave out what a method has in training only, so that deployed checkpoints fit as well."""
    cls = MODELS.get(cfg.model.type)
    if isinstance(cls, type) and issubclass(cls, FineGrainedClassifier):
        cfg.model.deployed = True


def set_tta(cfg: Config) -> None:
    """Average the scores of several views, by the config's ``tta_pipeline`` and ``tta_model``.

    A config without them gets the image and its mirror image, as in MMPretrain's tool.

    Raises:
        UserError: if the views cannot be built.
    """
    flips = [[dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]]
    for dataset in innermost_datasets(cfg.test_dataloader.dataset):
        *steps, pack = dataset.pipeline
        mirrored = dict(type='TestTimeAug', transforms=[*flips, [pack]])
        views = cfg.get('tta_pipeline') or [*steps, mirrored]
        with user_errors('tta_pipeline'):
            for step in views:
                # a copy, for TestTimeAug puts what it builds into its settings
                TRANSFORMS.build(deepcopy(step))
        dataset.pipeline = views
    wrapper = cfg.get('tta_model') or dict(type='AverageClsScoreTTA')
    cfg.model = ConfigDict(**wrapper, module=cfg.model)


def set_uncropped(cfg: Config) -> None:
    """Test on whole images, one at a time, since they differ in size (CRA-CNN, section 4.3).

    The paper averages the scores that the classifier gives at every position of the map. Behind
    average pooling a linear classifier needs no special treatment for that: the average of
    ``W f_ij + b`` over the positions is ``W`` times the average of ``f_ij``, plus ``b``.

    Raises:
        UserError: if the test pipeline does not crop, so that nothing would change.
    """
    for dataset in innermost_datasets(cfg.test_dataloader.dataset):
        whole = [step for step in dataset.pipeline if 'crop_size' not in step]
        if len(whole) == len(dataset.pipeline):
            steps = ', '.join(short_type(step) for step in whole)
            raise UserError(f'--uncropped: the test pipeline of this config crops nothing: {steps}')
        dataset.pipeline = whole
    cfg.test_dataloader.batch_size = 1


def mean_terms(model: BaseModel, loader: Iterable[dict]) -> dict[str, float]:
    """The mean over images of every term of the loss, in eval mode; ``loss`` is their sum.

    A term that compares the images of a batch with each other depends on their number and order.

    Args:
        model: a classifier of the zoo, trained by any method.
        loader: batches of images with labels.
    """
    totals: dict[str, float] = defaultdict(float)
    images: dict[str, int] = defaultdict(int)
    with in_testing(model):
        for batch in loader:
            data = model.data_preprocessor(batch, training=False)
            with torch.enable_grad():  # a method may differentiate scores inside its loss
                losses = model(**data, mode='loss')
            for name, value in model.parse_losses(losses)[1].items():
                totals[name] += float(value.detach()) * len(data['data_samples'])
                images[name] += len(data['data_samples'])
    return {name: totals[name] / images[name] for name in totals}
