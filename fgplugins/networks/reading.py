"""How the maps and the embedding of a timm network are read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgplugins.methods.base import Given

__all__ = ['Reading', 'describe_final', 'tail_of']


@dataclass
class Reading:
    """What to read off a network that has its head but not its classifier; it holds no layers.

    Attributes:
        levels: which of the network's maps, by number.
        normalized: behind the network's last normalisation; some networks refuse.
        final: where the last map is what the head reads, not the last of the levels: its form,
            'map' (N, C, H, W), 'channels last' (N, H, W, C) or 'tokens' (N, P + H W, C).
        prefix: P, how many tokens come before those of the positions.
        embedding: read the embedding too: the head makes more of the last map than its mean.
    """

    levels: list[int]
    normalized: bool = True
    final: str | None = None
    prefix: int = 0
    embedding: bool = False

    def __call__(self, network: nn.Module, x: Tensor) -> Given:
        """The maps (N, C_s, H_s, W_s) of images, shallow to deep, and the embedding if it is read.

        Args:
            network: of timm.
            x: images (N, channels, H, W).
        """
        if self.final is None and not self.embedding:
            return self.intermediates(network, x, intermediates_only=True)
        return self.of(network, *self.intermediates(network, x))

    def of(self, network: nn.Module, final: object, maps: list[Tensor]) -> Given:
        """The same, of the final features and the maps of the levels that the network gave."""
        if self.final is not None:
            maps = [*maps[:-1], self.last_map(final, maps[-1])]
            final = self.as_final(final, maps[-1])
        return (maps, network.forward_head(final)) if self.embedding else maps

    def intermediates(
        self, network: nn.Module, x: Tensor, intermediates_only: bool = False
    ) -> list[Tensor] | tuple[object, list[Tensor]]:
        """The final features and the maps of the levels, or these alone."""
        return network.forward_intermediates(
            x,
            indices=list(self.levels),
            norm=self.normalized,
            output_fmt='NCHW',
            intermediates_only=intermediates_only,
        )

    def last_map(self, final: Tensor, last: Tensor) -> Tensor:
        """The map (N, C, H, W) in the network's final features; ``last`` is the last of a level."""
        if self.final == 'channels last':
            return final.permute(0, 3, 1, 2)
        if self.final == 'tokens':
            return final[:, self.prefix :].transpose(1, 2).unflatten(2, last.shape[2:])
        return final

    def as_final(self, final: Tensor, last: Tensor) -> Tensor:
        """The final features, made of their map: what follows can be differentiated by that."""
        if self.final == 'channels last':
            return last.permute(0, 2, 3, 1)
        if self.final == 'tokens':
            tokens = last.flatten(2).transpose(1, 2)
            return torch.cat([final[:, : self.prefix], tokens], dim=1) if self.prefix else tokens
        return last


def describe_final(final: object, last: Tensor) -> tuple[str | None, int]:
    """The form of a network's final features as a map on the grid of its last level.

    Args:
        final: the features, of any kind.
        last: the map (N, C, H, W) of the last level.

    Returns:
        `Reading.final` and `Reading.prefix`; None if there is no such map in them.
    """
    if not isinstance(final, Tensor):
        return None, 0
    grid = tuple(last.shape[2:])
    if final.ndim == 4 and tuple(final.shape[2:]) == grid:
        return (None if final is last else 'map'), 0
    if final.ndim == 4 and tuple(final.shape[1:3]) == grid:
        return 'channels last', 0
    prefix = final.shape[1] - grid[0] * grid[1]
    if final.ndim == 3 and prefix >= 0 and final.shape[2] == last.shape[1]:
        tokens = Reading([], final='tokens', prefix=prefix).last_map(final, last)
        if torch.allclose(tokens, last, rtol=1e-3, atol=1e-4):
            return 'tokens', prefix
    return None, 0


def tail_of(z: Tensor, last: Tensor) -> str:
    """What a network's head does with its last map, to make the embedding z (N, D) of it.

    Returns:
        'mean' if it averages, and does nothing else; 'positions' if it does more; 'nothing' if the
        embedding does not depend on the map, as that of a class token.
    """
    if z.shape[1] == last.shape[1] and torch.equal(z, last.mean(dim=(2, 3))):
        nodes, seen = [z.grad_fn], {last.grad_fn, None}
        while nodes:
            node = nodes.pop()
            if node not in seen:
                seen.add(node)
                nodes += [below for below, _ in node.next_functions]
        # a new normalisation can be the identity, but its parameters are there
        if not any(hasattr(node, 'variable') for node in seen):
            return 'mean'
    direction = torch.linspace(-1, 1, z.numel(), device=z.device).view_as(z).to(z.dtype)
    (gradient,) = torch.autograd.grad(z, last, direction, retain_graph=True, allow_unused=True)
    return 'nothing' if gradient is None or not gradient.any() else 'positions'
