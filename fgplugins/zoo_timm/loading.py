"""A timm model for the tools: built by its name, with a checkpoint's weights and its images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor

from fgplugins.data import images
from fgplugins.errors import UserError, one_line
from fgplugins.networks.gates import gates_of
from fgplugins.utils.loaded import LoadedModel, check_names, training_views
from fgplugins.zoo_timm import ComposedModel, checkpoints
from fgplugins.zoo_timm.task import MethodTask

__all__ = ['load_timm']


def load_timm(
    name: str,
    checkpoint: str | None,
    kwargs: dict[str, object],
    training_only: bool = False,
    any_method: bool = False,
) -> LoadedModel:
    """Build a timm model.

    Args:
        name: of the model.
        checkpoint: file of weights; random ones without it.
        kwargs: arguments of the model.
        training_only: also load what exists in training only.
        any_method: take the weights of another method, if this one has the same.

    Raises:
        UserError: if it cannot be built, or the weights do not fit.
    """
    saved = checkpoints.SavedModel('', {})
    if checkpoint:
        saved = checkpoints.read_checkpoint(checkpoint)
    try:
        if not any_method:
            checkpoints.check_same_method(saved, name)
        arguments, size = checkpoints.build_arguments(name, saved, kwargs)
        model = timm.create_model(name, **arguments).eval()
        if checkpoint:
            checkpoints.check_weights(model, saved)
            model.load_state_dict(saved.weights)
        check_names(saved.classes, getattr(model, 'num_classes', None), checkpoint)
        data = checkpoints.data_config(model, saved.data, size)
    except UserError:
        raise
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError, OSError) as error:
        raise UserError(f'{name}: {one_line(error, 300)}') from error

    composed = isinstance(model, ComposedModel)
    views = None
    if training_only and composed and model.method.has_regularizer:
        if not saved.training_only:
            raise UserError(
                f'checkpoint {checkpoint!r} holds no weights that exist in training only'
            )
        task = MethodTask(model, verbose=False)
        task.load_task_state(saved.training_only)
        views = training_views(task.trainable_module.regularizer, model.method, model, model.read)
    return LoadedModel(
        name,
        model,
        tuple(data['input_size']),
        model.read if composed else None,
        model.method if composed else None,
        model.show if composed else None,
        _image_reader(name, data),
        saved.classes,
        views=views,
        data=data,
        gates=len(gates_of(model.backbone)) if composed else 0,
    )


def _image_reader(name: str, data: dict[str, object]) -> Callable[[str], tuple[np.ndarray, Tensor]]:
    """What reads an image as `LoadedModel.read_image` does, by timm's own transform for testing."""
    transform = timm.data.create_transform(**data, is_training=False)
    mean, std = (torch.tensor(data[key]).view(-1, 1, 1) for key in ('mean', 'std'))
    channels = data['input_size'][0]

    def read_image(path: str) -> tuple[np.ndarray, Tensor]:
        mode = {1: 'L', 3: 'RGB'}.get(channels)
        if mode is None:
            raise UserError(f'image {path}: {name} reads {channels} channels, pictures have 1 or 3')
        inputs = transform(Image.fromarray(images.read_image(path, mode)))
        shown = ((inputs * std + mean).clamp(0, 1) * 255).byte()
        return shown.permute(1, 2, 0).numpy(), inputs[None]

    return read_image
