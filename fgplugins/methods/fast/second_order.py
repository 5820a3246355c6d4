"""Convolutions whose second derivative costs what the first does.

A loss on gradients differentiates each convolution of the layers it looks through twice. Behind its
backward pass torch finds the derivative by the weights as one more convolution, of the batch's
transpose, for which its kernels are not made: many times slower than the weight gradient that every
training step computes. `second_order_convolutions` takes the latter. Results are the same sums.

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

_skip_weights = False


@contextmanager
def input_gradients_only() -> Iterator[None]:
    """Inside, the backward pass of these convolutions leaves out the gradients of weights."""
    global _skip_weights
    before, _skip_weights = _skip_weights, True
    try:
        yield
    finally:
        _skip_weights = before


def _backward(g: Tensor, x: Tensor, w: Tensor, settings: tuple, mask: list[bool]) -> tuple:
    stride, padding, dilation, groups = settings
    return torch.ops.aten.convolution_backward(
        g, x, w, [w.shape[0]], stride, padding, dilation, False, [0, 0], groups, mask
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, settings: tuple) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.settings = settings
        return F.conv2d(x, w, b, *settings)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        x, w = ctx.saved_tensors
        needs_x, needs_w, needs_b, _ = ctx.needs_input_grad
        weights = not _skip_weights
        mask = (needs_x, needs_w and weights, needs_b and weights)
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
