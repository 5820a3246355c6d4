"""An image classifier that asks its backbone which maps it gives, so that configs need not say."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import torch
from mmengine.model import BaseModule
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from fgplugins.methods.base import check_gradient_path, first_line
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.registry import MODELS, register

__all__ = ['FineGrainedClassifier', 'SecondStream', 'ask_channels', 'probe_maps']

TRAINING_ONLY = ('second_stream.', 'regularizer.')


def probe_maps(
    backbone: nn.Module,
    neck: nn.Module | None = None,
    image_channels: int = 3,
    gradients: bool = False,
) -> list[Tensor]:
    """The maps that the backbone (and neck) gives for one empty image, shallow to deep.

    Raises:
        ValueError: if it does not run, or what comes out is not a sequence of maps (N, C, H, W).
    """
    size = getattr(backbone, 'img_size', None)
    size = (size, size) if isinstance(size, int) else size
    sizes = [tuple(size)] if size else [(64, 64), (224, 224)]
    name = type(backbone).__name__
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        for height, width in sizes:
            try:
                with torch.set_grad_enabled(gradients):
                    features = backbone(torch.zeros(1, image_channels, height, width))
                    features = features if neck is None else neck(features)
                break
            except (RuntimeError, AssertionError, ValueError) as error:
                failure = error
        else:
            raise ValueError(
                f'{name} does not run on an empty image of {sizes[-1]}: {first_line(failure)}; '
                'give head.in_channels'
            )
    finally:
        for module, training in modes:
            module.training = training
    features = [features] if isinstance(features, Tensor) else list(features)
    if not all(isinstance(f, Tensor) and f.ndim == 4 for f in features):
        shapes = [tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__ for f in features]
        raise ValueError(
            f'{name} gives {shapes}, not maps of shape (N, C, H, W): choose its option for maps '
            "(out_type='featmap' of ViT and kin) or another backbone"
        )
    return features


def ask_channels(
    backbone: nn.Module, neck: nn.Module | None = None, image_channels: int = 3
) -> list[int]:
    """Channels of each map that the backbone (and neck) gives, shallow to deep.

    timm's ``features_only`` models say so themselves; others are run once on an empty image.

    Raises:
        ValueError: if what comes out is not a sequence of maps (N, C, H, W).
    """
    info = getattr(getattr(backbone, 'timm_model', None), 'feature_info', None)
    if neck is None and hasattr(info, 'channels'):
        return list(info.channels())
    return [f.shape[1] for f in probe_maps(backbone, neck, image_channels)]


class SecondStream(BaseModule):
    """A second network of the backbone's architecture (and neck's), which exists in training only.

    Args:
        backbone: its backbone.
        neck: its neck.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The maps (N, C_s, H_s, W_s), as the backbone (and neck) gives them."""
        features = self.backbone(inputs)
        return features if self.neck is None else self.neck(features)


class FineGrainedClassifier(ImageClassifier):
    """MMPretrain's ``ImageClassifier``, its method head wired to whatever the backbone gives.

    ``head.in_channels`` is found by asking the backbone; if it is given, it is checked. A method
    that trains beside a second network gets one of the same architecture, with the same initial
    weights where ``init_cfg`` names some.

    Args:
        backbone: any registered backbone that gives maps; several levels by its ``out_indices``.
        neck: any neck that gives maps.
        head: a method's head, as ``dict(type='WARNHead', num_classes=200)``.
        pretrained: checkpoint of the whole model.
        train_cfg: batch augmentations.
        data_preprocessor: MMPretrain's.
        deployed: leave out what exists in training only; checkpoints of training load all the same.
        init_cfg: mmengine's initialisation.

    Raises:
        ValueError: if the backbone gives fewer maps than the method reads, other channels than
            ``head.in_channels`` says, or maps that a method cannot differentiate scores by.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        pretrained: str | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        deployed: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        image_channels = 3 if isinstance(backbone, nn.Module) else backbone.get('in_channels', 3)
        configs = copy.deepcopy((backbone, neck))
        backbone, neck = self._build(backbone, neck)
        if isinstance(head, dict):
            head = self._wire(head, backbone, neck, image_channels)
        super().__init__(backbone, neck, head, pretrained, train_cfg, data_preprocessor, init_cfg)
        self.second_stream = self.regularizer = None
        method = getattr(self.head, 'method', None)
        if method is None:
            return
        if method.needs_gradient_path and not deployed:
            self._check_gradients(method.taps, image_channels)
        if method.has_regularizer:
            self.head.accompanied = True
            self._register_load_state_dict_pre_hook(self._drop_training_only)
            if not deployed:
                size = getattr(self.backbone, 'img_size', None)
                size = (size, size) if isinstance(size, int) else size
                self.second_stream = SecondStream(*self._build(*configs))
                self.regularizer = method.regularizer(tuple(size) if size else None)

    @staticmethod
    def _build(
        backbone: dict | nn.Module, neck: dict | nn.Module | None
    ) -> tuple[nn.Module, nn.Module | None]:
        """A backbone and a neck from their configs; modules stay as they are."""
        if not isinstance(backbone, nn.Module):
            backbone = MMPRETRAIN_MODELS.build(backbone)
        if neck is not None and not isinstance(neck, nn.Module):
            neck = MMPRETRAIN_MODELS.build(neck)
        return backbone, neck

    def _check_gradients(self, taps: int, image_channels: int) -> None:
        """Refuse a backbone that scores cannot be differentiated by, naming it."""
        maps = probe_maps(self.backbone, self.neck, image_channels, gradients=True)[-taps:]
        try:
            check_gradient_path(maps)
        except ValueError as error:
            raise ValueError(
                f'{type(self.head).__name__} differentiates scores with respect to the inner '
                f'feature map of {type(self.backbone).__name__}, and {error}'
            ) from None

    def _drop_training_only(self, state_dict: dict, prefix: str, *_: object) -> None:
        """Take no notice of weights that exist in training only, where this model has none."""
        if self.regularizer is None:
            for key in list(state_dict):
                if key.startswith(tuple(f'{prefix}{name}' for name in TRAINING_ONLY)):
                    del state_dict[key]

    @staticmethod
    def _wire(head: dict, backbone: nn.Module, neck: nn.Module | None, image_channels: int) -> dict:
        """The head's config with ``in_channels`` filled in or checked."""
        cls = MMPRETRAIN_MODELS.get(head['type'])
        if not (isinstance(cls, type) and issubclass(cls, MethodHead)):
            return head
        name, source = head['type'], type(backbone).__name__
        given = ask_channels(backbone, neck, image_channels)
        stated = head.get('in_channels')
        if stated is not None:
            taps = len(stated)
        else:
            taps = head.get('taps') or cls.method_class.default_taps
        if taps > len(given):
            raise ValueError(
                f'{name} reads taps={taps} feature maps, {source} gives {len(given)} with '
                f'channels {given}: give more levels (out_indices of the backbone) or '
                f'set head.taps to {len(given)} or less'
            )
        found = given[-taps:]
        if stated is not None and list(stated) != found:
            raise ValueError(
                f'{name}: in_channels={list(stated)}, but the last {taps} map(s) of {source} have '
                f'{found} channels: set in_channels={found} or leave it out'
            )
        return {**head, 'in_channels': found}

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """The head's terms, and those of the method's training-only part."""
        method = getattr(self.head, 'method', None)
        with nullcontext() if method is None else method.recording():
            features = self.extract_feat(inputs)
        terms = self.head.loss(features, data_samples)
        if self.regularizer is not None:
            target, maps = self.head.target(data_samples), self.head.pre_logits(features)
            added = self.regularizer(inputs, maps, target, self.second_maps)
            terms |= {f'loss_{name}': value for name, value in added.items()}
        return terms

    def second_maps(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The second network's maps, of the levels that the method reads."""
        return self.head.pre_logits(self.second_stream(inputs))

    def attention_maps(self, inputs: Tensor, **asked: object) -> list[Tensor]:
        """What the method looks at in preprocessed images: (N, K, H_s, W_s) masks per level."""
        with self.head.method.looking_at(inputs) as inputs:
            return self.head.attention(self.extract_feat(inputs), **asked)


register(MODELS, FineGrainedClassifier)
