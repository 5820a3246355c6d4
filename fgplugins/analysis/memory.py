"""What training has to remember: the bytes that a function keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ['saved_bytes']


def saved_bytes(function: Callable[[], object], known: Sequence[Tensor] = ()) -> int:
    """Bytes of all tensors that autograd saves while ``function`` runs, each memory counted once.

    Args:
        function: run with gradients on; its result is kept until the count is done.
        known: tensors that exist anyway (inputs, parameters) and are not counted.
    """
    present = {t.untyped_storage().data_ptr() for t in known}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in present:
            saved[address] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = function()
    total = sum(t.untyped_storage().nbytes() for t in saved.values())
    del result
    return total
