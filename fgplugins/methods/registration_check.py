"""A quick look at what a method returns, when it is registered.

The whole contract is `fgplugins.methods.checking`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fgplugins.methods.base import Method
from fgplugins.methods.registry import on_register, unregister

__all__ = [
    'CLASSES',
    'BrokenContract',
    'attention_of',
    'build_method',
    'check_masks',
    'check_returns',
    'check_scores',
    'check_terms',
    'describe',
    'embedding_of',
    'guarded',
    'owner_of',
    'random_inputs',
    'random_maps',
    'random_target',
]

CLASSES = 5
OURS = 'fgplugins.methods.'  # held to the whole contract by the package's own tests


class BrokenContract(TypeError):
    """A method does not keep the contract; the message names its owner and says how."""


def owner_of(cls: type[Method]) -> str:
    """Whose class it is, for messages."""
    return f'{cls.__module__}.{cls.__qualname__}'


def _channels(taps: int) -> list[int]:
    """Widths of as many maps, no two neighbours alike; the last has 64."""
    return [64 - 8 * (s % 4) for s in reversed(range(taps))]


def random_maps(method: Method, N: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Maps as a backbone gives them: each computed from the one before, smaller, not square.

    Of both signs, as many backbones' are.
    """
    halvings = min(method.taps, 4)
    x = torch.randn(N, 32, 3 << halvings, 2 << halvings, dtype=dtype, requires_grad=True)
    maps = []
    for s, C in enumerate(method.in_channels):
        if method.taps - s <= halvings:
            x = F.avg_pool2d(x, 2)
        x = x[:, torch.arange(1, C + 1) % x.shape[1]].tanh()
        maps.append(x)
    return maps


def random_inputs(
    method: Method, N: int, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """`random_maps`, and by its keyword the embedding of the last one if the method reads it."""
    features = random_maps(method, N, dtype)
    return features, embedding_of(method, features)


def embedding_of(method: Method, features: Sequence[Tensor]) -> dict[str, Tensor]:
    """An embedding that is more than the mean of the last map, if the method reads one."""
    if method.embedding_channels is None:
        return {}
    z = (features[-1] * features[-1].tanh()).mean(dim=(2, 3))
    columns = torch.arange(method.embedding_channels) % z.shape[1]
    return {'embedding': z[:, columns].tanh()}


def random_target(method: Method, N: int) -> Tensor:
    """Classes of N images, as the method is given them."""
    target = torch.arange(N) % CLASSES
    return torch.eye(CLASSES)[target] if method.multi_label else target


def build_method(
    cls: type[Method], hyperparameters: dict[str, object], embedding_channels: int | None = None
) -> Method:
    """The method for maps as `random_maps` makes them, as many as it reads by default."""
    taps = cls.default_taps
    if not isinstance(taps, int) or taps < 1:
        raise BrokenContract(f'default_taps={taps!r}: must be a number of maps, 1 or more')
    embedding = {} if embedding_channels is None else {'embedding_channels': embedding_channels}
    try:
        return cls(_channels(taps), CLASSES, **hyperparameters, **embedding)
    except Exception as error:
        given = ', '.join(f'{k}={v!r}' for k, v in {**hyperparameters, **embedding}.items())
        raise BrokenContract(
            f'cannot be built from in_channels={_channels(taps)} and num_classes={CLASSES}, '
            f'{given + " and " if given else ""}everything else by default: '
            f'{type(error).__name__}: {error}'
        ) from error


def guarded(name: str, function: Callable, *arguments: object, **given: object) -> object:
    """What a function returns; its failure is a broken contract of that name."""
    try:
        return function(*arguments, **given)
    except Exception as error:
        raise BrokenContract(f'{name} fails: {type(error).__name__}: {error}') from error


def attention_of(method: Method, features: Sequence[Tensor], given: dict[str, Tensor]) -> object:
    """What `Method.attention` returns, called as the zoos call it."""
    with torch.set_grad_enabled(method.attention_needs_gradient):
        return guarded('attention', method.attention, features, **given)


def check_scores(method: Method, features: Sequence[Tensor], given: dict[str, Tensor]) -> Tensor:
    """The scores, of the right shape and finite."""
    scores, N = guarded('forward', method, features, **given), len(features[0])
    if not isinstance(scores, Tensor) or scores.shape != (N, CLASSES):
        raise BrokenContract(
            f'forward gives {describe(scores)} for {N} image(s), it must give scores of shape '
            f'(N, num_classes), here {(N, CLASSES)}'
        )
    if not scores.isfinite().all():
        raise BrokenContract('forward gives scores that are not finite')
    return scores


def check_masks(
    method: Method, features: Sequence[Tensor], given: dict[str, Tensor]
) -> list[Tensor]:
    """The masks, a stack for each map, finite and not negative."""
    masks, N = attention_of(method, features, given), len(features[0])
    grids = [tuple(f.shape[2:]) for f in features]
    right = (
        isinstance(masks, (list, tuple))
        and len(masks) == len(features)
        and all(isinstance(m, Tensor) and m.ndim == 4 and len(m) == N for m in masks)
        and [tuple(m.shape[2:]) for m in masks] == grids
    )
    if not right:
        raise BrokenContract(
            f'attention gives {describe(masks)}, it must give a list of one stack of masks '
            f'(N, K, H, W) for each map, here with N={N} and (H, W) of {grids}'
        )
    if not all(bool(((m >= 0) & m.isfinite()).all()) for m in masks):
        raise BrokenContract('attention gives masks that are negative or not finite')
    return list(masks)


def check_terms(terms: object, name: str = 'loss') -> dict[str, Tensor]:
    """The terms of a loss, named finite scalars."""
    right = (
        isinstance(terms, dict)
        and len(terms) > 0
        and all(isinstance(key, str) for key in terms)
        and all(isinstance(v, Tensor) and v.ndim == 0 for v in terms.values())
    )
    if not right:
        raise BrokenContract(
            f'{name} gives {describe(terms)}, it must give a dict of named scalar tensors'
        )
    bad = next((key for key, v in terms.items() if not v.isfinite()), None)
    if bad is not None:
        raise BrokenContract(f'{name}: the term {bad!r} is not finite')
    return terms


def describe(value: object) -> str:
    """A value's type, with its shape or its parts."""
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)}'
    if isinstance(value, dict):
        parts = ', '.join(f'{k!r}: {describe(v)}' for k, v in value.items())
        return f'a dict {{{parts}}}'
    if isinstance(value, (list, tuple)):
        return f'a {type(value).__name__} of [{", ".join(map(describe, value))}]'
    return f'{type(value).__name__}'


def check_returns(cls: type[Method], **hyperparameters: object) -> None:
    """Run a method once on small random maps and look at what it returns: a few milliseconds.

    Raises:
        BrokenContract: if it cannot be built by default, or something of the wrong shape comes out.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            method = build_method(cls, hyperparameters)
            features, given = random_inputs(method, 2)
            check_scores(method.eval(), features, given)
            check_masks(method, features, given)
            target = random_target(method, 2)
            check_terms(guarded('loss', method.train().loss, features, target, **given))
        except BrokenContract as error:
            raise BrokenContract(f'{owner_of(cls)}: {error}') from error.__cause__


def _check_when_registered(name: str, cls: type[Method]) -> None:
    """`check_returns` for a method that is being registered; a broken one is not left registered.

    Raises:
        BrokenContract: naming the method and its owner.
    """
    if cls.__module__.startswith(OURS):
        return
    try:
        check_returns(cls)
    except BrokenContract as error:
        unregister(name)
        raise BrokenContract(f'method {name!r} of {error}') from error.__cause__


on_register(_check_when_registered)
