"""Which test images are shown: of every class, those first that a method changes."""

from __future__ import annotations

import numpy as np

from fgplugins.page.reading import Comparison

__all__ = ['changes', 'choose']


def changes(comparison: Comparison) -> np.ndarray:
    """How much methods change of each test image (n,): the share of runs, of the most changing one.

    An image is changed by a run that has it right where the control, with the same seed, has it
    wrong; or the reverse.
    """
    found = np.zeros(len(comparison.labels))
    for backbone in comparison.backbones:
        control = backbone.control
        for row in backbone.rows:
            seeds = [seed for seed in row.seeds if seed in control.seeds]
            if row is control or not seeds:
                continue
            own, other = (
                of.predicted[[of.seeds.index(seed) for seed in seeds]] == comparison.labels
                for of in (row, control)
            )
            found = np.maximum(found, (own != other).mean(axis=0))
    return found


def choose(labels: np.ndarray, changed: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """The places of at most so many images, in their order.

    First the most changed one of each class, as many classes as there is room for; then what is
    changed, most first; then the others, as many of a class as of any. Chance decides the rest.

    Args:
        labels: (n,) classes.
        changed: (n,) see `changes`.
        count: how many.
        seed: of chance.
    """
    chance = np.random.default_rng(seed).permutation(len(labels))
    order = sorted(range(len(labels)), key=lambda i: (-changed[i], chance[i]))
    rank: dict[int, int] = {}  # of an image among those of its class
    met: dict[int, int] = {}
    for i in order:
        rank[i] = met[labels[i]] = met.get(labels[i], -1) + 1

    def urgency(i: int) -> tuple[float, ...]:
        if rank[i] == 0:
            return 0, 0, chance[i]
        return (1, -changed[i], chance[i]) if changed[i] else (2, rank[i], chance[i])

    return sorted(sorted(order, key=urgency)[:count])
