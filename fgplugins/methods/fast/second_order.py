"""Convolutions whose second derivative costs what the first does.

A loss on gradients differentiates each convolution of the layers it looks through twice. For the
second derivative by the weights torch convolves the transposed batch, which its kernels are not
made for: that is many times slower than the weight gradient of every training step. Inside
`second_order_convolutions` it is computed as that weight gradient is. The sums are the same.

With g the gradient of y = w * x, g_x = w^T * g and g_w = x (x) g:

    d<v, g_x>/dg = w * v,    d<v, g_x>/dw = v (x) g      v in place of the input
    d<u, g_w>/dg = u * x,    d<u, g_w>/dx = u^T * g      u in place of the weight
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ['input_gradients_only', 'second_order_convolutions']


@contextmanager
def input_gradients_only(above: Tensor, below: Tensor) -> Iterator[None]:
    """Inside, gradients of ``above`` by ``below`` leave out those of the weights between them.

    torch would compute them, for nobody: it asks each convolution for all of its gradients.

    Args:
        above: computed from ``below`` by convolutions that were recorded in this form.
        below: the tensor to differentiate by.
    """
    passed = list(_convolutions_between(above, below))
    for node in passed:
        node.weights_wanted = False
    try:
        yield
    finally:
        for node in passed:
            node.weights_wanted = True


def _convolutions_between(above: Tensor, below: Tensor) -> Iterator[Any]:
    """The recorded convolutions on the ways from one tensor down to another."""
    seen, nodes = {None, below.grad_fn}, [above.grad_fn]
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            nodes.extend(lower for lower, _ in node.next_functions)
            if hasattr(node, 'weights_wanted'):
                yield node


def _backward(g: Tensor, x: Tensor, w: Tensor, settings: tuple, mask: list[bool]) -> tuple:
    stride, padding, dilation, groups = settings
    return torch.ops.aten.convolution_backward(
        g, x, w, [w.shape[0]], stride, padding, dilation, False, [0, 0], groups, mask
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, settings: tuple) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.settings, ctx.weights_wanted = settings, True
        return F.conv2d(x, w, b, *settings)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        x, w = ctx.saved_tensors
        needs_x, needs_w, needs_b, _ = ctx.needs_input_grad
        mask = (needs_x, needs_w and ctx.weights_wanted, needs_b and ctx.weights_wanted)
        return *_ConvolutionBackward.apply(g, x, w, ctx.settings, mask), None


class _ConvolutionBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, settings: tuple, mask: tuple) -> tuple:
        ctx.save_for_backward(g, x, w)
        ctx.set_materialize_grads(False)
        ctx.settings, ctx.mask = settings, mask
        return _backward(g, x, w, settings, list(mask))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor | None, u: Tensor | None, s: Tensor | None) -> tuple:
        g, x, w = ctx.saved_tensors
        needs_g, needs_x, needs_w, *_ = ctx.needs_input_grad
        d_g = d_x = d_w = None
        if v is not None:
            d_g = F.conv2d(v, w, None, *ctx.settings) if needs_g else None
            d_w = _backward(g, v, w, ctx.settings, [False, True, False])[1] if needs_w else None
        if u is not None:
            if needs_g:
                through_u = F.conv2d(x, u, None, *ctx.settings)
                d_g = through_u if d_g is None else d_g + through_u
            d_x = _backward(g, x, u, ctx.settings, [True, False, False])[0] if needs_x else None
        if s is not None and needs_g:
            through_s = s.view(1, -1, 1, 1).expand_as(g)
            d_g = through_s if d_g is None else d_g + through_s
        return d_g, d_x, d_w, None, None


def _pair(value: int | tuple) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


class second_order_convolutions(TorchFunctionMode):
    """Context in which two-dimensional convolutions are recorded in this form."""

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if func is torch.conv2d and torch.is_grad_enabled():
            found = self._arguments(*args, **(kwargs or {}))
            if found is not None:
                return _Convolution.apply(*found)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _arguments(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple = 1,
        padding: int | tuple | str = 0,
        dilation: int | tuple = 1,
        groups: int = 1,
    ) -> tuple | None:
        """What `_Convolution` takes; None for paddings by name."""
        if isinstance(padding, str):
            return None
        device = input.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            input, weight = input.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        settings = _pair(stride), _pair(padding), _pair(dilation), groups
        return input, weight, bias, settings
