"""Parameters in groups by depth, as timm decays the learning rate from layer to layer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

__all__ = ['LAST', 'layer_ordinals', 'network_ordinals']

LAST = (math.inf,)  # where timm groups what no pattern matches, a classifier first of all


def layer_ordinals(matcher: Any) -> Callable[[str], tuple[float, ...]]:
    """A group matcher of any kind that timm takes, as a function of a parameter's name."""
    if callable(matcher):

        def find(name: str) -> tuple[float, ...]:
            found = matcher(name)
            return tuple(found) if isinstance(found, Iterable) else (found,)

        return find
    if isinstance(matcher, dict):
        groups = [s if isinstance(s, list | tuple) else [(s, None)] for s in matcher.values()]
        matcher = [(p, (i,), suffix) for i, group in enumerate(groups) for p, suffix in group if p]
    patterns = [(re.compile(pattern), *rest) for pattern, *rest in matcher]

    def find_pattern(name: str) -> tuple[float, ...]:
        for pattern, prefix, suffix in patterns:
            match = pattern.match(name)
            if match:
                parts = (*(prefix or ()), *match.groups(), *(suffix or ()))
                return tuple(float(part) for part in parts if part is not None)
        return LAST

    return find_pattern


def network_ordinals(network: nn.Module, coarse: bool) -> Callable[[str], tuple[float, ...]]:
    """A network's own groups, as a function of a parameter's name.

    A network that timm has no groups for has one for each of its parts, in their order, and of the
    stages in a part.
    """
    if hasattr(network, 'group_matcher'):
        return layer_ordinals(network.group_matcher(coarse=coarse))
    parts = [name for name, _ in network.named_children()]
    return layer_ordinals({p: [(rf'{p}\.(\d+)\.', None), (rf'{p}\.', None)] for p in parts})
