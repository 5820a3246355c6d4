"""Composed models for ``torch.jit.script``: traced, since that takes a part of Python only."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fgplugins.methods import Method
from fgplugins.utils.modes import in_testing

__all__ = ['TracedModel', 'trace_method']


class _Traced(nn.Module):
    """A module as it runs in testing, in the form that ``torch.jit.script`` takes.

    Args:
        module: the module.
        *example: what it is run on once.
    """

    def __init__(self, module: nn.Module, *example: Tensor | list[Tensor]) -> None:
        super().__init__()
        with torch.no_grad(), in_testing(module), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of sizes that are read in Python
            self.traced = torch.jit.trace(module, example, check_trace=False)


class TracedModel(_Traced):
    """A traced model: a function of images."""

    def forward(self, x: Tensor) -> Tensor:
        return self.traced(x)


class _TracedMethod(_Traced):
    """A traced method: a function of maps, and of the embedding where it reads that."""

    def forward(self, features: list[Tensor], embedding: Tensor | None = None) -> Tensor:
        if embedding is None:
            return self.traced(features)
        return self.traced(features, embedding)


def trace_method(method: Method, shapes: Sequence[tuple[int, ...]]) -> nn.Module:
    """A method, traced on maps of these shapes."""
    weight = next(method.parameters())
    example: list[Any] = [[weight.new_zeros(shape) for shape in shapes]]
    if method.embedding_channels is not None:
        example.append(weight.new_zeros(1, method.embedding_channels))
    return _TracedMethod(method, *example)
