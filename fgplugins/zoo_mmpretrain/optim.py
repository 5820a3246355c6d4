"""bfloat16 training where MMPretrain's own wrapper asks for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from fgplugins.zoo_mmpretrain.registry import OPTIM_WRAPPERS, register

__all__ = ['AutocastOptimWrapper']


class AutocastOptimWrapper(OptimWrapper):
    """Runs the forward pass under bfloat16 autocast on any device; no loss scaling is needed.

    Args:
        device_type: 'cpu' | 'cuda' | ...
        **kwargs: of ``OptimWrapper``.
    """

    def __init__(self, device_type: str = 'cpu', **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.device_type = device_type

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with (
            super().optim_context(model),
            torch.autocast(self.device_type, dtype=torch.bfloat16),
        ):
            yield


register(OPTIM_WRAPPERS, AutocastOptimWrapper)
