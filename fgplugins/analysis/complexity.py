"""Parameters and multiply-adds, counted by fvcore.

What papers call FLOPs are multiply-adds (MACs) of convolutions, linear layers and matrix products;
fvcore counts one per multiply-add there. Normalisations, resizing and pooling are counted by fvcore
in elementary operations; they are reported apart. Operators that fvcore has no count for, as
additions and softmax, are listed; it takes activations, products by a scalar and reshaping as free.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fgplugins.analysis.loading import LoadedModel

with warnings.catch_warnings():  # fvcore scripts two losses when it is imported
    warnings.simplefilter('ignore', FutureWarning)
    from fvcore.nn import FlopCountAnalysis, parameter_count
    from fvcore.nn.jit_handles import get_shape

__all__ = ['MAC_OPERATORS', 'Complexity', 'count_complexity', 'count_layers', 'paper_form']

MAC_OPERATORS = (
    'addmm',
    'baddbmm',
    'bmm',
    'conv',
    'einsum',
    'linear',
    'matmul',
    'mm',
    'scaled_dot_product_attention',
)


@dataclass
class Complexity:
    """What a model costs.

    Attributes:
        parameters: number of weights.
        macs: multiply-adds of one forward pass.
        by_module: module name -> (parameters, macs).
        other: elementary operations that are not multiply-adds, by operator.
        uncounted: operators that nothing was counted for -> how often they run.
    """

    parameters: int
    macs: int
    by_module: dict[str, tuple[int, int]]
    other: dict[str, int] = field(default_factory=dict)
    uncounted: dict[str, int] = field(default_factory=dict)

    def at_depth(self, depth: int) -> dict[str, tuple[int, int]]:
        """Modules at most ``depth`` names deep, in the model's order; '' is the whole model."""
        return {
            name: cost
            for name, cost in self.by_module.items()
            if (name.count('.') + 1 if name else 0) <= depth
        }


def _attention_macs(inputs: Sequence[object], outputs: Sequence[object]) -> Counter[str]:
    """Two products: queries by keys, weights by values."""
    query, key, value = (get_shape(i) for i in inputs[:3])
    batch = 1
    for size in query[:-2]:
        batch *= size
    macs = batch * query[-2] * key[-2] * (query[-1] + value[-1])
    return Counter({'scaled_dot_product_attention': macs})


class _Forward(nn.Module):
    """A model seen through another forward function, so that fvcore can trace that."""

    def __init__(self, model: nn.Module, forward: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.model, self.function = model, forward

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def paper_form(loaded: LoadedModel) -> Callable[[Tensor], Tensor]:
    """The model's forward pass with its method in the paper's own order of operations."""
    return lambda x: loaded.method.forward_paper(loaded.features(x))


def count_complexity(
    model: nn.Module,
    input_size: tuple[int, int, int],
    forward: Callable[[Tensor], object] | None = None,
) -> Complexity:
    """Count a forward pass of one image.

    Args:
        model: put in eval mode for the count.
        input_size: (channels, height, width).
        forward: what to count, if not the model's own forward.

    Returns:
        The costs.
    """
    weight = next(model.parameters())
    x = torch.zeros(1, *input_size, device=weight.device, dtype=weight.dtype)
    training = model.training
    model.eval()
    logging.getLogger('fvcore.nn.jit_analysis').setLevel(logging.ERROR)
    traced = _Forward(model, forward or model)
    with torch.no_grad():
        analysis = FlopCountAnalysis(traced, x)
        analysis.set_op_handle('aten::scaled_dot_product_attention', _attention_macs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings('none')
        operators = analysis.by_module_and_operator()
        uncounted = dict(analysis.unsupported_ops())
    model.train(training)

    parameters = parameter_count(model)
    by_module = {}
    for name, _ in model.named_modules():
        counted = operators.get(f'model.{name}' if name else 'model', Counter())
        macs = sum(counted[operator] for operator in MAC_OPERATORS)
        by_module[name] = (parameters.get(name, 0), int(macs))
    total = operators['']
    macs = int(sum(total[operator] for operator in MAC_OPERATORS))
    by_module[''] = (parameters[''], macs)
    other = {k: int(v) for k, v in total.items() if k not in MAC_OPERATORS and v}
    return Complexity(parameters[''], macs, by_module, other, uncounted)


class _LayerCounter(TorchFunctionMode):
    """Counts what the functions called inside it do: layers and matrix products apart."""

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
    """Operations as module counters like ptflops have them, which CLAN's Table 5 is made by.

    Convolutions and linear layers with their biases, two operations for each value that is
    batch-normalised, one for each that goes through a ReLU, into a pooling or out of a resampling.

    Args:
        model: put in eval mode for the count.
        input_size: (channels, height, width).
        forward: what to count, if not the model's own forward.

    Returns:
        The operations of the layers, and the multiply-adds of the matrix products, which module
        counters leave out.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad(), _LayerCounter() as counter:
        (forward or model)(torch.zeros(1, *input_size, device=device))
    model.train(training)
    return int(counter.layers), int(counter.products)
