"""Which of a timm network's maps a method reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ['choose_levels', 'find_levels']


def choose_levels(feature_info: Sequence[dict[str, Any]], taps: int, owner: str) -> list[int]:
    """Which of a backbone's feature maps a method reads: the last ones, by number.

    Backbones with several strides give their last ``taps`` maps. Backbones of one stride (ViT and
    kin) give ``taps`` maps evenly spaced in depth, the last one included.

    Args:
        feature_info: timm's description of the maps: 'num_chs' and 'reduction' of each.
        taps: how many maps the method reads.
        owner: who asks, for the error message.

    Raises:
        ValueError: if the backbone has fewer maps.
    """
    available = len(feature_info)
    if not 1 <= taps <= available:
        raise ValueError(
            f'{owner} reads taps={taps} feature maps, the backbone gives {available}: '
            f'pass taps between 1 and {available}'
        )
    if available > 1 and len({info['reduction'] for info in feature_info}) == 1:
        return [(i + 1) * available // taps - 1 for i in range(taps)]
    return list(range(available - taps, available))


def find_levels(
    feature_info: Sequence[dict[str, Any]],
    taps: int | None,
    levels: Sequence[int] | None,
    default_taps: int,
    method: str,
    backbone: str,
) -> list[int]:
    """The levels that a user asks for, by number or by how many; else the method's own choice.

    Args:
        feature_info: timm's description of the backbone's maps.
        taps: how many, if the user says so.
        levels: their indices into ``feature_info``, if the user says so.
        default_taps: how many the method reads when nobody says.
        method: its name.
        backbone: its name.

    Raises:
        ValueError: if both are given, or the backbone lacks a level.
    """
    count = len(feature_info)
    if levels is None:
        taps = default_taps if taps is None else taps
        levels = choose_levels(feature_info, taps, f'{method} on {backbone}')
    elif taps is not None:
        raise ValueError(f'taps={taps}, levels={list(levels)}: give one of them')
    elif not all(-count <= i < count for i in levels):
        raise ValueError(f'levels={list(levels)}: {backbone} has {count} maps, 0 to {count - 1}')
    return sorted(i % count for i in levels)
