"""An image classifier that asks its backbone which maps it gives, so that configs need not say."""

from __future__ import annotations

import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor, nn

from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.registry import MODELS, register

__all__ = ['FineGrainedClassifier', 'ask_channels']


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

    size = getattr(backbone, 'img_size', None)
    size = (size, size) if isinstance(size, int) else size
    sizes = [tuple(size)] if size else [(64, 64), (224, 224)]
    name = type(backbone).__name__
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        for height, width in sizes:
            try:
                with torch.no_grad():
                    features = backbone(torch.zeros(1, image_channels, height, width))
                    features = features if neck is None else neck(features)
                break
            except (RuntimeError, AssertionError, ValueError) as error:
                failure = error
        else:
            reason = str(failure).split('\n')[0]
            raise ValueError(
                f'{name} does not run on an empty image of {sizes[-1]}: {reason}; '
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
    return [f.shape[1] for f in features]


class FineGrainedClassifier(ImageClassifier):
    """MMPretrain's ``ImageClassifier``, its method head wired to whatever the backbone gives.

    ``head.in_channels`` is found by asking the backbone; if it is given, it is checked.

    Args:
        backbone: any registered backbone that gives maps; several levels by its ``out_indices``.
        neck: any neck that gives maps.
        head: a method's head, as ``dict(type='WARNHead', num_classes=200)``.
        pretrained: checkpoint of the whole model.
        train_cfg: batch augmentations.
        data_preprocessor: MMPretrain's.
        init_cfg: mmengine's initialisation.

    Raises:
        ValueError: if the backbone gives fewer maps than the method reads, or other channels than
            ``head.in_channels`` says.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        pretrained: str | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        image_channels = 3
        if not isinstance(backbone, nn.Module):
            image_channels = backbone.get('in_channels', 3)
            backbone = MMPRETRAIN_MODELS.build(backbone)
        if neck is not None and not isinstance(neck, nn.Module):
            neck = MMPRETRAIN_MODELS.build(neck)
        if isinstance(head, dict):
            head = self._wire(head, backbone, neck, image_channels)
        super().__init__(backbone, neck, head, pretrained, train_cfg, data_preprocessor, init_cfg)

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

    def attention_maps(self, inputs: Tensor) -> list[Tensor]:
        """What the method looks at in preprocessed images: (N, K, H_s, W_s) masks per level."""
        return self.head.attention(self.extract_feat(inputs))


register(MODELS, FineGrainedClassifier)
