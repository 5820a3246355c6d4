"""Exact bytes: those a function keeps for its backward pass, and the most it holds at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ['peak_bytes', 'saved_bytes']


def saved_bytes(function: Callable[[], object], known: Sequence[Tensor] = ()) -> int:
    """Bytes of all tensors that autograd saves while ``function`` runs.

    Tensors that share their memory are counted once.

    Args:
        function: run with gradients on; its result is kept until the count is done.
        known: tensors that exist before (inputs, parameters) and are not counted.
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


class _LiveBytes(TorchDispatchMode):
    """Follows the memory of every tensor that an operator returns, until it is freed."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.sizes = {t.untyped_storage()._cdata: 0 for t in known}
        self.live = self.peak = 0

    def _free(self, storage: int) -> None:
        self.live -= self.sizes.pop(storage)

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in self.sizes:  # else it is a view of a tensor seen before
                self.sizes[storage._cdata] = storage.nbytes()
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._free, storage._cdata)
        return output


def peak_bytes(function: Callable[[], object], known: Iterable[Tensor] = ()) -> int:
    """The most bytes that tensors made by ``function`` take at a time.

    They are counted when an operator returns, and so are the same on every machine. Memory that an
    operator takes and frees inside is not seen, nor is anything of a compiled function.

    Args:
        function: run once.
        known: tensors that exist before (inputs, parameters) and are not counted.
    """
    with _LiveBytes(known) as counter:
        result = function()
    del result
    return counter.peak
