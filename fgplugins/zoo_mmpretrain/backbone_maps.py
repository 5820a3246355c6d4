"""The maps of MMPretrain's backbones: how they are read, and what a backbone says of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from fgplugins.utils.probing import find_view_size, probe, sizes_to_try
from fgplugins.zoo_mmpretrain.timm_network import TimmNetwork

__all__ = [
    'ask_image_channels',
    'ask_view_size',
    'build_backbone',
    'has_channels_last',
    'is_vector',
    'more_levels',
    'probe_network',
    'read_network',
    'split_embedding',
]


def read_network(
    backbone: nn.Module, neck: nn.Module | None, inputs: Tensor
) -> tuple[list[Tensor], Tensor | None]:
    """What a backbone (and neck) gives for images: maps (N, C, H, W), and an embedding (N, D).

    A neck that gives maps refines those of the backbone. One that gives vectors makes the embedding
    of them, and they pass it by. A backbone can give the embedding itself, behind its maps.
    """
    if isinstance(backbone, TimmNetwork):
        given = backbone.read(inputs)
        outputs = [*given[0], given[1]] if backbone.reading.embedding else list(given)
    else:
        outputs = as_list(backbone(inputs))
    if has_channels_last(backbone):
        outputs = [x.permute(0, 3, 1, 2) if x.ndim == 4 else x for x in outputs]
    if neck is not None:
        refined = as_list(neck(tuple(outputs)))
        if not all(is_vector(x) for x in refined):
            return split_embedding(refined)
        maps, _ = split_embedding(outputs)
        return maps, refined[-1]
    return split_embedding(outputs)


def as_list(outputs: object) -> list:
    """Outputs of a module as a list, whether it gives one or several."""
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def is_vector(x: object) -> bool:
    """Whether an output is vectors (N, D)."""
    return isinstance(x, Tensor) and x.ndim == 2


def split_embedding(outputs: Sequence[Tensor]) -> tuple[list[Tensor], Tensor | None]:
    """Maps, and the embedding that stands behind them if there is one."""
    if len(outputs) > 1 and is_vector(outputs[-1]):
        return list(outputs[:-1]), outputs[-1]
    return list(outputs), None


def has_channels_last(backbone: nn.Module) -> bool:
    """Whether a backbone of timm's says that its maps are (N, H, W, C)."""
    network = getattr(backbone, 'timm_model', None)
    return str(getattr(getattr(network, 'output_fmt', None), 'value', 'NCHW')) == 'NHWC'


def probe_network(
    backbone: nn.Module,
    neck: nn.Module | None = None,
    image_channels: int = 3,
    gradients: bool = False,
) -> tuple[list[Tensor], Tensor | None]:
    """What the backbone (and neck) gives for one image: maps, shallow to deep, and the embedding.

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
    read = functools.partial(read_network, backbone, neck)
    try:
        maps, embedding = probe(read, network, image_channels, ask_sizes(backbone), gradients, True)
    except ValueError as error:
        raise ValueError(f'{name} {error}; give head.in_channels') from None
    if not maps or not all(isinstance(f, Tensor) and f.ndim == 4 for f in maps):
        shapes = [tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__ for f in maps]
        refiner = '' if neck is None else f' with the neck {type(neck).__name__}'
        raise ValueError(
            f'{name}{refiner} gives {shapes}, not maps of shape (N, C, H, W): choose its option '
            "for maps (out_type='featmap' of ViT and kin, gap_before_final_norm=False of ConvNeXt, "
            'num_classes=-1 of VGG) or another backbone'
        )
    return maps, embedding


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
    read = functools.partial(read_network, backbone, neck)
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


def more_levels(settings: dict, backbone: nn.Module, given: int, taps: int) -> dict | None:
    """A backbone's config, to give as many maps as a method reads.

    Args:
        settings: of the backbone.
        backbone: built of them; most of MMPretrain's say in ``out_indices`` which maps they give.
        given: how many maps it gives.
        taps: how many are read.

    Returns:
        With the levels below those that it gives; None if it gives enough, does not say which, or
        has not as many.
    """
    levels = getattr(backbone, 'out_indices', None)
    levels = [levels] if isinstance(levels, int) else list(levels or [])
    if given >= taps or not levels or min(levels) < 0 or max(levels) < taps - 1:
        return None
    last = max(levels)
    return {**settings, 'out_indices': tuple(range(last - taps + 1, last + 1))}
