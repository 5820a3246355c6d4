"""Finding out what a network can do, by running it once on an empty image.

Which sizes of images it takes, which maps it gives, which of its parameters they depend on, and
whether they can be differentiated twice. Both zoos ask it of their backbones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.errors import first_line
from fgplugins.methods.base import Network
from fgplugins.utils.modes import in_testing

__all__ = [
    'check_gradient_path',
    'find_view_size',
    'make_twice_differentiable',
    'probe',
    'sizes_to_try',
    'turn_into_buffers',
    'unused_parameters',
]


Size = tuple[int, int]  # height and width


def sizes_to_try(own: Size | None, fixed: bool = False, stride: int | None = None) -> list[Size]:
    """Sizes of images to run a network on, one after the other until it takes one.

    Args:
        own: the network's, where it says one.
        fixed: it takes no other.
        stride: of its last map, where it says that.
    """
    if own is not None and fixed:
        return [own]
    side = 64 if stride is None else 2 * stride
    return [(side, side), *([(224, 224), (256, 256)] if own is None else [own])]


def probe(
    network: Network,
    module: nn.Module,
    channels: int,
    sizes: Sequence[Size],
    gradients: bool = False,
    noise: bool = False,
) -> Any:
    """What a network gives for one image, of the first size that it takes.

    Args:
        network: computes the maps.
        module: what it runs; it does so as in testing, so that its statistics stay as they are.
        channels: of the image.
        sizes: to try.
        gradients: compute the maps with gradients on.
        noise: the image is of noise, always the same; else it is empty.

    Raises:
        ValueError: with the reason why it does not run on the last of the sizes.
    """
    weight = next(module.parameters(), torch.zeros(()))
    with in_testing(module), torch.set_grad_enabled(gradients):
        for size in sizes:
            image = torch.zeros(1, channels, *size, device=weight.device, dtype=weight.dtype)
            if noise:
                image += torch.linspace(0, 1e3, image.numel()).sin().view_as(image).to(image)
            try:
                return network(image)
            except Exception as error:  # whatever it is, use raises it again
                failure = error
    raise ValueError(
        f'does not run on an image of {tuple(sizes[-1])}: {first_line(failure)}'
    ) from failure


def find_view_size(
    network: Network, module: nn.Module, channels: int, sizes: Sequence[Size]
) -> Size | None:
    """The size that views of an image have to be resized to, before a network looks at them.

    Args:
        network: see `probe`.
        module: likewise.
        channels: of the images.
        sizes: to try, the first being that of a view as it is.

    Returns:
        The first size that it takes; None if that is the first of all, or if it takes none.
    """
    for size in sizes:
        try:
            probe(network, module, channels, [size])
        except ValueError:
            continue
        return None if size == sizes[0] else size
    return None


def unused_parameters(module: nn.Module, maps: Sequence[Tensor]) -> list[str]:
    """Names of a module's parameters that its maps, computed with gradients on, do not depend on.

    None are named if a part of the computation hides its parameters, as activation checkpointing
    does.
    """
    nodes, seen, reached = [m.grad_fn for m in maps], set(), set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            if isinstance(node, torch.autograd.function.BackwardCFunction):
                return []
            seen.add(node)
            reached.add(getattr(node, 'variable', None))
            nodes.extend(below for below, _ in node.next_functions)
    return [name for name, p in module.named_parameters() if p not in reached]


def turn_into_buffers(module: nn.Module, names: Sequence[str]) -> None:
    """Make buffers of parameters: kept, saved and loaded as before, but not trained."""
    for name in names:
        path, _, last = name.rpartition('.')
        owner = module.get_submodule(path)
        value = getattr(owner, last).detach()
        delattr(owner, last)
        owner.register_buffer(last, value)


class TwiceHardsigmoid(nn.Module):
    """``nn.Hardsigmoid``, which with gradients on can be differentiated twice."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 3).clamp(0, 6) / 6 if torch.is_grad_enabled() else F.hardsigmoid(x)


def make_twice_differentiable(module: nn.Module) -> list[nn.Module]:
    """Replace layers that PyTorch can differentiate only once by equal ones.

    Returns:
        The layers with fused attention (as timm marks it), which must not be fused in training.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Hardsigmoid):
                setattr(parent, name, TwiceHardsigmoid())
    return [layer for layer in module.modules() if getattr(layer, 'fused_attn', False)]


def check_gradient_path(features: Sequence[Tensor]) -> None:
    """Refuse maps that a loss on gradients cannot use: scores must be differentiable by them twice.

    A network that returns a normalised or permuted copy of what it continues from is refused: its
    scores have no gradient with respect to the copy.

    Raises:
        ValueError: saying what fails.
    """
    *inner, last = features
    if not all(f.requires_grad for f in features):
        raise ValueError(
            'it is computed without gradients, since all below it is frozen: freeze fewer stages'
        )
    try:
        gradients = torch.autograd.grad(last.sum(), inner, create_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise ValueError(f'its gradient cannot be computed: {first_line(error)}') from None
    if any(g is None for g in gradients):
        raise ValueError(
            'what it hands over is not the tensor it continues from, but a normalised, permuted or '
            'detached copy, or the end of another branch: take a backbone that hands over the map '
            'itself, as ResNet, RegNet, EfficientNet, MobileNetV2, VGG or ConvNeXt of timm'
        )
    again = sum(g.square().sum() for g in gradients)
    if again.requires_grad:
        try:
            torch.autograd.grad(again, inner, allow_unused=True)
        except RuntimeError as error:
            raise ValueError(f'it cannot be differentiated twice: {first_line(error)}') from None
