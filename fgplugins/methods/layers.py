"""What several methods are made of: layers, a loss, and how numbers are kept in range."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

__all__ = [
    'BatchNorm',
    'linear_weight',
    'negative_log_likelihood',
    'resize',
    'scale_gradient',
    'score_gradient',
    'without_float16',
]


def linear_weight(layer: nn.Module) -> Tensor:
    """The weight (out, in) of a linear layer, also of one that PyTorch has quantised."""
    weight = layer.weight
    return weight if isinstance(weight, Tensor) else weight().dequantize()


def score_gradient(classifier: nn.Module, z: Tensor, direction: Tensor) -> Tensor:
    """The derivative (N, D) of scores with respect to the vectors z (N, D) that are classified.

    Args:
        classifier: of any kind; that of a linear layer is read off its weights.
        z: the vectors.
        direction: which scores: weights (N, Y) of each image's.
    """
    # a quantised layer's weight is a method
    if isinstance(classifier, nn.Linear) or callable(getattr(classifier, 'weight', None)):
        weight = linear_weight(classifier)
        return direction @ weight.to(torch.promote_types(weight.dtype, direction.dtype))
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        z = z if z.requires_grad else z.detach().requires_grad_()
        scores = classifier(z)
        (gradient,) = torch.autograd.grad(scores, z, direction.to(scores), create_graph=graph)
    return gradient


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of vectors (N, C) that also trains on a batch of one.

    One vector has no variance; it is normalised by the running statistics instead.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear resampling of maps (N, C, h, w) to the height and width of others (N, C', H, W)."""
    return nn.functional.interpolate(x, size=like.shape[2:], mode='bilinear', align_corners=False)


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """``x`` unchanged in the forward pass, its gradient times ``scale`` in the backward pass."""
    if scale == 1:
        return x
    if scale == 0:
        return x.detach()
    return x.detach() + scale * (x - x.detach())


def _raised(value: object) -> object:
    """A tensor, or those of a sequence, in float32 if in float16; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [_raised(v) for v in value]
    return value.float() if isinstance(value, Tensor) and value.dtype is torch.float16 else value


def without_float16(function: Callable) -> Callable:
    """Decorator: what the function would compute in float16, it computes in float32.

    For products of features and their sums over channels: the largest number of float16 is 65504.
    bfloat16, which holds them, stays. The parameters of a module in float16 are raised for the
    call, if the function is a module's.

    Args:
        function: of tensors and sequences of them, some of which are features.
    """

    @functools.wraps(function)
    def in_float32(*arguments: object, **named: object) -> object:
        given = [*arguments, *named.values()]
        flat = [x for a in given for x in (a if isinstance(a, (list, tuple)) else [a])]
        tensors = [x for x in flat if isinstance(x, Tensor)]
        device = tensors[0].device.type
        is_half = any(x.dtype is torch.float16 for x in tensors)
        has_autocast = torch.amp.is_autocast_available(device)  # meta has none
        chosen = (
            has_autocast
            and torch.is_autocast_enabled(device)
            and torch.get_autocast_dtype(device) is torch.float16
        )
        if not is_half and not chosen:
            return function(*arguments, **named)
        module = arguments[0]
        named = {key: _raised(value) for key, value in named.items()}
        with torch.autocast(device, enabled=False) if has_autocast else nullcontext():
            if not isinstance(module, nn.Module):
                return function(*_raised(arguments), **named)
            half = [k for k, p in module.named_parameters() if p.dtype is torch.float16]
            if not half:
                return function(module, *_raised(arguments[1:]), **named)
            weights = {k: module.get_parameter(k).float() for k in half}
            # functional_call is made of this, and calls nothing but forward
            with _reparametrize_module(module, weights):
                return function(module, *_raised(arguments[1:]), **named)

    return in_float32


def negative_log_likelihood(scores: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of log-scores (N, Y): mean over N of ``-sum_y target_y scores_y``.

    Args:
        scores: (N, Y) logarithms; they need not be normalised.
        target: (N,) class indices or (N, Y) class probabilities (Mixup, label smoothing).

    Raises:
        ValueError: for targets of another shape.
    """
    if target.ndim == 1:
        return nn.functional.nll_loss(scores, target)
    if target.shape != scores.shape:
        N, Y = scores.shape
        raise ValueError(
            f'targets of shape {tuple(target.shape)}: must be class indices ({N},) or '
            f'probabilities ({N}, {Y})'
        )
    return -(target * scores).sum(dim=1).mean()
