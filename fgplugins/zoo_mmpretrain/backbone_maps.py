"""The maps of MMPretrain's backbones: how they are read, and what a backbone says of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from fgplugins.utils.probing import find_view_size, probe, sizes_to_try

__all__ = [
    'ask_channels',
    'ask_image_channels',
    'ask_view_size',
    'build_backbone',
    'has_channels_last',
    'probe_maps',
    'read_maps',
]


def read_maps(
    backbone: nn.Module, neck: nn.Module | None, inputs: Tensor
) -> Sequence[Tensor] | Tensor:
    """What the backbone (and neck) gives for images, its maps as (N, C, H, W).

    Some of timm's networks hand over (N, H, W, C), and say so.
    """
    maps = backbone(inputs)
    if has_channels_last(backbone):
        maps = tuple(x.permute(0, 3, 1, 2) if x.ndim == 4 else x for x in maps)
    return maps if neck is None else neck(maps)


def has_channels_last(backbone: nn.Module) -> bool:
    """Whether a backbone of timm's says that its maps are (N, H, W, C)."""
    network = getattr(backbone, 'timm_model', None)
    return str(getattr(getattr(network, 'output_fmt', None), 'value', 'NCHW')) == 'NHWC'


def probe_maps(
    backbone: nn.Module,
    neck: nn.Module | None = None,
    image_channels: int = 3,
    gradients: bool = False,
) -> list[Tensor]:
    """The maps that the backbone (and neck) gives for one empty image, shallow to deep.

    Args:
        backbone: any network.
        neck: what follows it.
        image_channels: of the image.
        gradients: compute them with gradients on.

    Raises:
        ValueError: if it does not run, or what comes out is not a sequence of maps (N, C, H, W).
    """
    name = type(backbone).__name__
    network = nn.ModuleList([backbone] if neck is None else [backbone, neck])
    read = functools.partial(read_maps, backbone, neck)
    try:
        features = probe(read, network, image_channels, ask_sizes(backbone), gradients)
    except ValueError as error:
        raise ValueError(f'{name} {error}; give head.in_channels') from None
    features = [features] if isinstance(features, Tensor) else list(features)
    if not all(isinstance(f, Tensor) and f.ndim == 4 for f in features):
        shapes = [tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__ for f in features]
        if neck is not None:
            raise ValueError(
                f'{name} with the neck {type(neck).__name__} gives {shapes}, not maps of shape '
                '(N, C, H, W): leave the neck out (neck=None), since methods pool by themselves'
            )
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


def ask_image_channels(backbone: nn.Module) -> int:
    """Channels of the images that a backbone takes, by its first convolution; 3 if it has none."""
    first = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
    return first.in_channels if first is not None and first.in_channels in (1, 3) else 3


def ask_sizes(backbone: nn.Module) -> list[tuple[int, int]]:
    """Sizes of images to try a backbone on: its own, if it has one."""
    size = getattr(backbone, 'img_size', None)
    own = (size, size) if isinstance(size, int) else size and tuple(size)
    return sizes_to_try(own or None, fixed=bool(own))


def ask_view_size(
    backbone: nn.Module, neck: nn.Module | None = None, image_channels: int = 3
) -> tuple[int, int] | None:
    """The only size of images that a backbone takes; None if it takes small ones too."""
    sizes = ask_sizes(backbone)
    if len(sizes) == 1:
        return sizes[0]
    network = nn.ModuleList([backbone] if neck is None else [backbone, neck])
    read = functools.partial(read_maps, backbone, neck)
    return find_view_size(read, network, image_channels, sizes)


def build_backbone(settings: dict) -> nn.Module:
    """A backbone by its config.

    Raises:
        ValueError: if it is one of timm's, and has not the levels that are asked for.
    """
    try:
        return MODELS.build(settings)
    except IndexError as error:
        levels, name = settings.get('out_indices'), settings.get('model_name')
        if name is None or levels is None:
            raise
        whole = {k: v for k, v in settings.items() if k not in ('out_indices', 'pretrained')}
        count = len(MODELS.build(whole).timm_model.feature_info.channels())
        raise ValueError(
            f'{name} has {count} levels, 0 to {count - 1}; out_indices={tuple(levels)}: give '
            f'out_indices={tuple(range(count - len(levels), count))}'
        ) from error
