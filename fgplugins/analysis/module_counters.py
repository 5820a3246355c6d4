"""Operations counted as ptflops counts them, which is how CLAN's Table 5 was made.

They count layers: convolutions and linear layers with their biases, two operations for each value
that is batch-normalised, one for each value that goes through a ReLU, into a pooling or out of a
resampling. They leave matrix products out, which are counted apart here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fgplugins.utils.modes import in_testing

__all__ = ['count_layers']


class _LayerCounter(TorchFunctionMode):
    """Counts what the functions that are called inside it do, layers and matrix products apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = self.products = 0

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, '__name__', '')
        if name in ('conv2d', 'linear'):
            bias = args[2] if len(args) > 2 else (kwargs or {}).get('bias')
            self.layers += output.numel() * (args[1][0].numel() + (bias is not None))
        elif name == 'batch_norm':
            self.layers += 2 * output.numel()
        elif name in ('relu', 'relu_', 'interpolate'):
            self.layers += output.numel()
        elif name in ('max_pool2d', 'avg_pool2d', 'adaptive_avg_pool2d', 'mean', 'amax'):
            self.layers += args[0].numel()
        elif name in ('bmm', 'matmul', '__matmul__', 'mm'):
            self.products += output.numel() * args[0].shape[-1]
        elif name == 'baddbmm':
            self.products += output.numel() * args[1].shape[-1]
        elif name == 'scaled_dot_product_attention':
            query, key, value = args[:3]
            size = query.shape[-1] + value.shape[-1]
            self.products += query.numel() // query.shape[-1] * key.shape[-2] * size
        return output


def count_layers(
    model: nn.Module,
    input_size: tuple[int, int, int],
    forward: Callable[[Tensor], object] | None = None,
) -> tuple[int, int]:
    """Count a forward pass of one image as module counters do.

    Args:
        model: in eval mode for the count.
        input_size: (channels, height, width).
        forward: what to count, if not the model's own forward.

    Returns:
        The operations of the layers, and the multiply-adds of the matrix products.
    """
    device = next(model.parameters()).device
    with torch.no_grad(), in_testing(model), _LayerCounter() as counter:
        (forward or model)(torch.zeros(1, *input_size, device=device))
    return int(counter.layers), int(counter.products)
