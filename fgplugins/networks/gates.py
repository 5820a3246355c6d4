"""Attention that is part of a network: its gates, shown in front of a method's masks.

A network says which of its submodules are gates, shallow to deep, by an attribute
``attention_gates``: their names. Their output is the gate (N, 1, H, W).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from fgplugins.methods.base import Method, Network

__all__ = ['gates_of', 'show']


def gates_of(network: nn.Module) -> tuple[str, ...]:
    """Names of a network's submodules that are gates, shallow to deep; most have none."""
    return tuple(getattr(network, 'attention_gates', ()))


@contextmanager
def _collected(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside, every gate that the network computes is kept, under its name."""
    found: dict[str, Tensor] = {}

    def keep(name: str, gate: Tensor) -> None:
        found[name] = gate.detach()

    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda module, given, gate, name=name: keep(name, gate)
        )
        for name in gates_of(network)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def show(
    method: Method, network: nn.Module, read: Network, images: Tensor, **asked: object
) -> tuple[Tensor, list[Tensor]]:
    """`Method.show`, with the gates of the network in front of the method's masks.

    Args:
        method: what stands on the network.
        network: which may have gates.
        read: runs it; gives what the method is given.
        images: (N, channels, H, W).
        **asked: of the method's `questions`.

    Returns:
        Scores (N, Y), and masks (N, K, H_s, W_s): first one (N, 1, H, W) for each gate, then those
        of the method's levels.
    """
    with _collected(network) as gates:
        scores, masks = method.show(read, images, **asked)
    return scores, [*(gates[name] for name in gates_of(network)), *masks]
