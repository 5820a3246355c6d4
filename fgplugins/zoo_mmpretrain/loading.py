"""A config's model for the tools: built by MMPretrain, with a checkpoint's weights."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmpretrain.registry import TRANSFORMS
from torch import Tensor, nn

from fgplugins.errors import UserError
from fgplugins.methods.base import Given
from fgplugins.networks.gates import gates_of
from fgplugins.utils.loaded import LoadedModel, Preparation, check_names, training_views
from fgplugins.zoo_mmpretrain import FineGrainedClassifier, MethodHead
from fgplugins.zoo_mmpretrain.backbone_maps import ask_image_channels
from fgplugins.zoo_mmpretrain.colours import as_rgb, gives_bgr, picture_pipeline
from fgplugins.zoo_mmpretrain.running import checkpoints, configs
from fgplugins.zoo_mmpretrain.running.errors import user_errors
from fgplugins.zoo_mmpretrain.running.initial_weights import drop_pretrained
from fgplugins.zoo_mmpretrain.running.models import check_model
from fgplugins.zoo_mmpretrain.running.settings import innermost_datasets, pipeline_size, short_type
from fgplugins.zoo_mmpretrain.transforms import CropToBox

__all__ = ['load_classifier', 'load_config_model']


def load_config_model(
    name: str,
    checkpoint: str | None,
    options: dict[str, object],
    training_only: bool = False,
    any_method: bool = False,
) -> LoadedModel:
    """Build the model of a config file, with as many classes as the checkpoint names.

    Args:
        name: the file, or the name of a shipped config.
        checkpoint: file of weights; without it those of the config.
        options: settings of the config to override.
        training_only: also load what exists in training only.
        any_method: take the weights of another method, if this one has the same.

    Raises:
        UserError: if it cannot be built, has no test pipeline, or the weights do not fit.
    """
    cfg = configs.load_config(
        argparse.Namespace(config=name, cfg_options=options, work_dir=None, data_root=None)
    )
    content = None
    if checkpoint:
        content = checkpoints.read_checkpoint(checkpoint)
        classes = checkpoints.class_names(content)
        head = cfg.model.get('head') or {}
        if classes and 'num_classes' in head and 'model.head.num_classes' not in options:
            head.num_classes = len(classes)
    return load_classifier(Path(name).stem, cfg, checkpoint, content, training_only, any_method)


def load_classifier(
    name: str,
    cfg: Config,
    checkpoint: str | None = None,
    content: dict | None = None,
    training_only: bool = False,
    any_method: bool = False,
) -> LoadedModel:
    """Build the model of a config that has been read.

    Args:
        name: what reports call it.
        cfg: the config.
        checkpoint: file of weights; without it those of the config.
        content: what was read of the file.
        training_only: also load what exists in training only.
        any_method: take the weights of another method, if this one has the same.

    Raises:
        UserError: if it cannot be built, has no test pipeline, or the weights do not fit.
    """
    if not isinstance(cfg.get('model'), dict):
        raise UserError(f'{name}: model={cfg.get("model")!r}: must be a dict with a type')
    if short_type(cfg.model) == FineGrainedClassifier.__name__:
        cfg.model.deployed = not training_only
    if content is not None:
        drop_pretrained(cfg.model)  # the checkpoint has all of its own
    model = check_model(cfg)
    model.eval()
    head, classes = getattr(model, 'head', None), None
    if content is not None:
        classes = checkpoints.class_names(content)
        check_names(classes, getattr(head, 'num_classes', None), checkpoint)
        checkpoints.check_checkpoint(content, checkpoint, model, any_method=any_method)
        weights = checkpoints.weights_of(content)
        model.load_state_dict(weights, strict=isinstance(model, FineGrainedClassifier))

    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise UserError(f'{name}: the config has neither test_dataloader nor val_dataloader')
    pipeline = innermost_datasets(loader.dataset)[0].pipeline
    has_method = isinstance(head, MethodHead)

    def features(inputs: Tensor) -> Given:
        return model.head.given(model.extract_feat(inputs))

    views = None
    if training_only and getattr(model, 'regularizer', None) is not None:
        views = training_views(model.regularizer, head.method, model, features)
    stated = (cfg.model.get('backbone') or {}).get('in_channels')
    channels = stated or ask_image_channels(model)
    return LoadedModel(
        name,
        model,
        (channels, *pipeline_size(pipeline)),
        features if has_method else None,
        model.head.method if has_method else None,
        functools.partial(head.show, model) if has_method else None,
        _image_reader(model, pipeline),
        functools.partial(_prepare, model, pipeline),
        list(classes) if classes else None,
        cfg,
        views,
        gates=len(gates_of(model.backbone)) if has_method else 0,
    )


def _build_pipeline(steps: list[dict]) -> Compose:
    """A test pipeline for files on their own.

    Raises:
        UserError: if it cannot be built.
    """
    alone = [step for step in steps if short_type(step) != CropToBox.__name__]
    if len(alone) < len(steps):
        print('note: images are read whole: a file on its own has no box to crop it by')
    with user_errors('test pipeline'):
        return Compose([TRANSFORMS.build(step) for step in alone])


class _Reader:
    """Reads image files as a test pipeline has them.

    Args:
        pipeline: from ``img_path`` to ``inputs``.
    """

    def __init__(self, pipeline: Compose) -> None:
        self.pipeline = pipeline

    def __call__(self, path: str) -> Tensor:
        return self.pipeline({'img_path': str(path)})['inputs']


def _prepare(model: nn.Module, steps: list[dict]) -> Preparation:
    """See `LoadedModel.prepare`: the config's data preprocessor takes whole batches."""

    def finish(batch: Tensor) -> Tensor:
        return model.data_preprocessor({'inputs': batch}, training=False)['inputs']

    return Preparation(_Reader(_build_pipeline(steps)), finish)


def _image_reader(
    model: nn.Module, steps: list[dict]
) -> Callable[[str], tuple[np.ndarray, Tensor]]:
    """What reads an image as `LoadedModel.read_image` does, by the config's test pipeline.

    The pipeline is built for the first image: what reads none may have one that cannot be built.
    """

    @functools.cache
    def pipeline() -> Compose:
        return _build_pipeline(steps)

    @functools.cache
    def pictures() -> Compose | None:
        return picture_pipeline(pipeline())

    @functools.cache
    def blue_first() -> bool:
        return gives_bgr(pipeline(), bool(model.data_preprocessor.to_rgb))

    def read_image(path: str) -> tuple[np.ndarray, Tensor]:
        packed = pipeline()({'img_path': str(path)})
        batch = {'inputs': [packed['inputs']], 'data_samples': [packed['data_samples']]}
        inputs = model.data_preprocessor(batch, training=False)['inputs']
        if pictures() is not None:
            return as_rgb(pictures()({'img_path': str(path)})['inputs'], bgr=True), inputs
        return as_rgb(packed['inputs'], blue_first()), inputs

    return read_image
