"""Which parameters a network's maps depend on, and what can be differentiated twice.

Both zoos ask it of their backbones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.errors import first_line

__all__ = [
    'check_gradient_path',
    'differentiate_twice',
    'turn_into_buffers',
    'unused_parameters',
]


def unused_parameters(module: nn.Module, maps: Sequence[Tensor]) -> list[str]:
    """Names of the parameters that maps, computed with gradients on, do not depend on.

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
    """``nn.Hardsigmoid``; with gradients on in a form that has a second derivative in PyTorch."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 3).clamp(0, 6) / 6 if torch.is_grad_enabled() else F.hardsigmoid(x)


def differentiate_twice(module: nn.Module) -> list[nn.Module]:
    """Replace layers that PyTorch differentiates once only by the same functions in another form.

    Returns:
        The layers with fused attention (as timm marks it), which must not be fused in training.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Hardsigmoid):
                setattr(parent, name, TwiceHardsigmoid())
    return [layer for layer in module.modules() if getattr(layer, 'fused_attn', False)]


def check_gradient_path(features: Sequence[Tensor]) -> None:
    """Refuse maps that scores cannot be differentiated by, twice, as a gradient-based loss does.

    A network that returns a normalised or permuted copy of what it continues from fails here: its
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
