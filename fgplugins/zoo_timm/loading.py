"""A timm model for the tools: built by its name, with a checkpoint's weights and its images."""

from __future__ import annotations

import functools

import numpy as np
import timm
import torch
from torch import Tensor, nn

from fgplugins.data import images
from fgplugins.errors import UserError, one_line
from fgplugins.networks.gates import gates_of
from fgplugins.utils.loaded import LoadedModel, Preparation, check_names, training_views
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
        classes, size = saved.classes, size or checkpoints.published_size(name)
        if kwargs.get('pretrained') and not checkpoint:
            classes = checkpoints.published_classes(model)
        check_names(classes, getattr(model, 'num_classes', None), checkpoint or name)
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
        functools.partial(_read_image, name, model, data),
        functools.partial(_prepare, name, model, data),
        classes,
        views=views,
        data=data,
        gates=len(gates_of(model.backbone)) if composed else 0,
    )


class _Reader:
    """Reads image files as timm's own transform for testing has them, still in bytes.

    Args:
        name: of the model.
        data: what ``timm.data.create_transform`` takes.

    Raises:
        UserError: for a network of other than 1 or 3 channels, which pictures do not have.
    """

    def __init__(self, name: str, data: dict[str, object]) -> None:
        channels = data['input_size'][0]
        if channels not in (1, 3):
            raise UserError(f'{name} reads {channels} channels, pictures have 1 or 3')
        self.mode = 'L' if channels == 1 else 'RGB'
        self.transform = timm.data.create_transform(**data, is_training=False, normalize=False)

    def __call__(self, path: str) -> Tensor:
        return self.transform(images.open_image(path, self.mode))


def _prepare(name: str, model: nn.Module, data: dict[str, object]) -> Preparation:
    """See `LoadedModel.prepare`: the transform's last two steps are taken by the batch."""
    mean, std = (torch.tensor(data[key]).view(-1, 1, 1) for key in ('mean', 'std'))

    def finish(batch: Tensor) -> Tensor:
        device = next(model.parameters()).device
        x = batch.to(device, non_blocking=True).float().div_(255)
        return x.sub_(mean.to(device)).div_(std.to(device))

    return Preparation(_Reader(name, data), finish)


def _read_image(
    name: str, model: nn.Module, data: dict[str, object], path: str
) -> tuple[np.ndarray, Tensor]:
    """See `LoadedModel.read_image`."""
    prepared = _prepare(name, model, data)
    shown = prepared.read(path)
    return shown.permute(1, 2, 0).numpy(), prepared.finish(shown[None])
