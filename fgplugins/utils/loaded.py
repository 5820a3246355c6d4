"""A model as the tools use it, whichever zoo it was built by; each zoo's ``loading`` makes one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fgplugins.errors import UserError
from fgplugins.methods import Method, Regularizer
from fgplugins.methods.base import Network
from fgplugins.utils.modes import in_testing

__all__ = ['LoadedModel', 'Preparation', 'check_names', 'training_views']


@dataclass
class Preparation:
    """How image files become a network's input, in the two steps that a batch is made in.

    Attributes:
        read: path -> what the pipeline makes of the file (C, H, W); processes that load images get
            it as a copy.
        finish: a batch of these (N, C, H, W) -> the network's input, on the network's device.
    """

    read: Callable[[str], Tensor]
    finish: Callable[[Tensor], Tensor]


@dataclass
class LoadedModel:
    """A model of either zoo, with what the tools ask of it.

    Attributes:
        name: the config's or the timm model's.
        model: in eval mode.
        input_size: (channels, height, width).
        features: images (N, C, H, W) -> what a method is given: the maps, and the embedding if it
            reads that; None for a plain network.
        method: the method on top; None for a plain network.
        show: images (N, C, H, W), and keywords of the method's `questions` -> scores (N, Y) and
            masks (N, K, H_s, W_s): of the network's own gates, then of the method's levels; None
            for a plain network.
        read_image: path -> (the image as the model sees it in bytes, the network's input (1, ...)).
        prepare: builds what prepares images by the batch; the same input, value by value.
        classes: names of the classes where they are known.
        config: the config of a model of MMPretrain's kind.
        views: images -> the named views (N, C, h, w) that a method trains on; None if it has no
            part that exists in training only, or that was not asked for.
        data: how images are prepared for a timm model.
        gates: how many gates the network has.
    """

    name: str
    model: nn.Module
    input_size: tuple[int, int, int]
    features: Network | None
    method: Method | None
    show: Callable[..., tuple[Tensor, list[Tensor]]] | None
    read_image: Callable[[str], tuple[np.ndarray, Tensor]]
    prepare: Callable[[], Preparation]
    classes: list[str] | None = None
    config: object | None = None
    views: Callable[[Tensor], dict[str, Tensor]] | None = None
    data: dict[str, object] | None = None
    gates: int = 0

    def look(self, inputs: Tensor, **asked: object) -> tuple[Tensor, list[Tensor]]:
        """What `show` gives, with the model as in testing.

        Args:
            inputs: (N, C, H, W).
            **asked: of the method's `questions`.
        """
        with in_testing(self.model):
            return self.show(inputs, **asked)


def training_views(
    regularizer: Regularizer, method: Method, model: nn.Module, features: Network
) -> Callable[[Tensor], dict[str, Tensor]]:
    """The function that shows the views of images that a regularizer trains on.

    Args:
        regularizer: the method's part that exists in training only.
        method: the method.
        model: the model they belong to.
        features: images -> what the method is given.
    """

    def views(images: Tensor) -> dict[str, Tensor]:
        with in_testing(model), in_testing(regularizer), torch.no_grad():
            maps, given = method.split(features(images))
            return regularizer.show(images, maps, **given)

    return views


def check_names(classes: Sequence[str] | None, count: int | None, checkpoint: str | None) -> None:
    """Refuse a checkpoint's names of classes that do not fit the model's scores.

    Args:
        classes: the names; nothing is checked without them.
        count: how many classes the model has, where that is known.
        checkpoint: the file, for the message.

    Raises:
        UserError: if there are more or fewer names than classes, or one stands twice.
    """
    if not classes:
        return
    twice, times = Counter(classes).most_common(1)[0]
    if times > 1:
        raise UserError(f'checkpoint {checkpoint!r} is damaged: its class {twice!r} stands twice')
    if count is not None and count != len(classes):
        raise UserError(
            f'checkpoint {checkpoint!r} is of {len(classes)} classes, the model has {count}'
        )
