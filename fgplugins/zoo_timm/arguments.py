"""Arguments of ``timm.create_model``: which are a method's, which a backbone's, which wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from timm.models._pretrained import PretrainedCfg

from fgplugins.errors import did_you_mean
from fgplugins.methods import Method
from fgplugins.networks.names import look_up_network

__all__ = [
    'check_backbone',
    'check_numbers',
    'classifier_layers',
    'explain_argument',
    'method_arguments',
]


# what any model takes besides the arguments of its method and of its backbone
OF_THE_MODEL = (
    'num_classes', 'in_chans', 'taps', 'levels', 'head', 'drop_rate', 'global_pool',
    'backbone_checkpoint',
)  # fmt: skip


def check_numbers(
    num_classes: int = 1000,
    in_chans: int = 3,
    taps: int | None = None,
    levels: Sequence[int] | None = None,
    **_: Any,
) -> None:
    """Refuse numbers that no model can be built with.

    Raises:
        ValueError: naming the argument.
    """
    for name, value, least in (
        ('num_classes', num_classes, 0),
        ('in_chans', in_chans, 1),
        ('taps', 1 if taps is None else taps, 1),
    ):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f'{name}={value!r}: must be a whole number, {least} or more')
    if levels is not None and (
        not isinstance(levels, (list, tuple))
        or not levels
        or not all(isinstance(level, Integral) for level in levels)
        or len(set(levels)) < len(levels)
    ):
        raise ValueError(f'levels={levels!r}: must be different whole numbers, as (1, 2, 3)')


def method_arguments(cls: type[Method]) -> list[str]:
    """The names of a method's own hyper-parameters, in order."""
    return [p.name for p in cls.hyperparameters()]


def check_backbone(name: str, cache_dir: str | Path | None = None) -> PretrainedCfg | None:
    """The settings of a backbone's weights, if there are any.

    Raises:
        ValueError: if timm does not know the name, or it has a method on top already.
    """
    try:
        return look_up_network(name, cache_dir)
    except ValueError as error:
        raise ValueError(f'backbone={error}') from None


def explain_argument(message: str, cls: type[Method], method: str, backbone: str) -> str:
    """What to say of an argument that neither the method nor the backbone takes."""
    found = re.search(r"unexpected keyword argument '(\w+)'", message)
    if not found:
        return message
    known = method_arguments(cls)
    hint = did_you_mean(found[1], known) or did_you_mean(found[1], OF_THE_MODEL)
    return (
        f'{method} on {backbone}: neither takes {found[1]!r}{hint} ({method} has '
        f'{", ".join(known) or "no arguments of its own"})'
    )


def classifier_layers(cls: type[Method], taps: int | None = None, **kwargs: Any) -> tuple[str, ...]:
    """The layers of a method whose size depends on the number of classes, by name.

    timm leaves them out when it loads weights of another number of classes.
    """
    taps = cls.default_taps if taps is None else taps
    with torch.device('meta'):
        one, other = (cls([8] * taps, Y, **kwargs).state_dict() for Y in (2, 3))
    changed = (name for name in one if one[name].shape != other[name].shape)
    return tuple(dict.fromkeys(name.rpartition('.')[0] for name in changed))
