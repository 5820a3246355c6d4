"""Whether a method keeps the contract: cheaply when it is registered, thoroughly when asked.

`check_method` is for whoever writes a method; its package's tests need one line:

    fgplugins.check_method(Mine)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods.base import Method, Regularizer
from fgplugins.methods.registry import METHODS, on_register

__all__ = ['BrokenContract', 'check_method', 'check_returns', 'withdraw']

CHANNELS, CLASSES = 64, 5
OURS = 'fgplugins.methods.'  # what the package's own tests hold to the contract


class BrokenContract(TypeError):
    """A method does not keep the contract; the message names its owner and says how."""


def _owner(cls: type[Method]) -> str:
    return f'{cls.__module__}.{cls.__qualname__}'


def _maps(taps: int, N: int) -> list[Tensor]:
    """Maps as a backbone gives them: each computed from the one before, smaller, not square.

    Of both signs, as many backbones' are.
    """
    x = torch.randn(N, CHANNELS, 3 << taps, 2 << taps, requires_grad=True)
    maps = []
    for _ in range(taps):
        x = F.avg_pool2d(x, 2).roll(1, dims=1).tanh()
        maps.append(x)
    return maps


def _build(cls: type[Method], hyperparameters: dict[str, object]) -> Method:
    taps = cls.default_taps
    if not isinstance(taps, int) or taps < 1:
        raise BrokenContract(f'default_taps={taps!r}: must be a number of maps, 1 or more')
    try:
        return cls([CHANNELS] * taps, CLASSES, **hyperparameters)
    except Exception as error:
        raise BrokenContract(
            f'cannot be built from in_channels={[CHANNELS] * taps} and num_classes={CLASSES}, '
            f'everything else by default: {type(error).__name__}: {error}'
        ) from error


def _call(name: str, function: Callable, *arguments: object) -> object:
    try:
        return function(*arguments)
    except Exception as error:
        raise BrokenContract(f'{name} fails: {type(error).__name__}: {error}') from error


def _attention(method: Method, features: Sequence[Tensor]) -> object:
    with torch.set_grad_enabled(method.needs_gradient_path):
        return _call('attention', method.attention, features)


def _check_scores(method: Method, features: Sequence[Tensor]) -> Tensor:
    scores, N = _call('forward', method, features), len(features[0])
    if not isinstance(scores, Tensor) or scores.shape != (N, CLASSES):
        raise BrokenContract(
            f'forward gives {_describe(scores)} for {N} image(s), it must give scores of shape '
            f'(N, num_classes), here {(N, CLASSES)}'
        )
    if not scores.isfinite().all():
        raise BrokenContract('forward gives scores that are not finite')
    return scores


def _check_masks(method: Method, features: Sequence[Tensor]) -> list[Tensor]:
    masks, N = _attention(method, features), len(features[0])
    grids = [tuple(f.shape[2:]) for f in features]
    right = (
        isinstance(masks, (list, tuple))
        and len(masks) == len(features)
        and all(isinstance(m, Tensor) and m.ndim == 4 and len(m) == N for m in masks)
        and [tuple(m.shape[2:]) for m in masks] == grids
    )
    if not right:
        raise BrokenContract(
            f'attention gives {_describe(masks)}, it must give a list of one stack of masks '
            f'(N, K, H, W) for each map, here with N={N} and (H, W) of {grids}'
        )
    if not all(bool((m >= 0).all()) for m in masks):
        raise BrokenContract('attention gives masks that are negative or not numbers')
    return list(masks)


def _check_terms(terms: object, name: str = 'loss') -> dict[str, Tensor]:
    right = (
        isinstance(terms, dict)
        and len(terms) > 0
        and all(isinstance(key, str) for key in terms)
        and all(isinstance(v, Tensor) and v.ndim == 0 for v in terms.values())
    )
    if not right:
        raise BrokenContract(
            f'{name} gives {_describe(terms)}, it must give a dict of named scalar tensors'
        )
    bad = next((key for key, v in terms.items() if not v.isfinite()), None)
    if bad is not None:
        raise BrokenContract(f'{name}: the term {bad!r} is not finite')
    return terms


def _describe(value: object) -> str:
    """A value's type, with its shape or its parts."""
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)}'
    if isinstance(value, dict):
        parts = ', '.join(f'{k!r}: {_describe(v)}' for k, v in value.items())
        return f'a dict {{{parts}}}'
    if isinstance(value, (list, tuple)):
        return f'a {type(value).__name__} of [{", ".join(map(_describe, value))}]'
    return f'{type(value).__name__}'


def check_returns(cls: type[Method], **hyperparameters: object) -> None:
    """Run a method once on small random maps and look at what it returns: a few milliseconds.

    Raises:
        BrokenContract: if it cannot be built by default, or something of the wrong shape comes out.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            method = _build(cls, hyperparameters)
            features = _maps(method.taps, 2)
            _check_scores(method.eval(), features)
            _check_masks(method, features)
            target = torch.tensor([0, CLASSES - 1])
            _check_terms(_call('loss', method.train().loss, features, target))
        except BrokenContract as error:
            raise BrokenContract(f'{_owner(cls)}: {error}') from error.__cause__


def withdraw(name: str) -> None:
    """Take back a registration that turned out wrong."""
    METHODS._obj_map.pop(name, None)


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
        withdraw(name)
        raise BrokenContract(f'method {name!r} of {error}') from error.__cause__


on_register(_check_when_registered)

# ------------------------------------------------------------------------------------ thoroughly


def _check_batches(build: Callable[[], Method]) -> None:
    """Batches of one, two and three, in training and in testing."""
    for training in (True, False):
        for N in (1, 2, 3):
            method = build().train(training)
            features, target = _maps(method.taps, N), torch.arange(N) % CLASSES
            try:
                _check_scores(method, features)
                _check_masks(method, features)
                _check_terms(_call('loss', method.loss, features, target))
            except BrokenContract as error:
                mode = 'training' if training else 'testing'
                raise BrokenContract(f'in {mode}, with a batch of {N}: {error}') from error


def _check_gradients(build: Callable[[], Method]) -> None:
    """Every parameter is trained by the loss."""
    method = build().train()
    features = _maps(method.taps, 3)
    sum(method.loss(features, torch.arange(3)).values()).backward()
    unused = [name for name, p in method.named_parameters() if p.grad is None]
    if unused:
        raise BrokenContract(
            f'the loss has no gradient for {", ".join(unused)}: what is not trained must not be a '
            'parameter (distributed training stops at it)'
        )


def _check_determinism(build: Callable[[], Method]) -> None:
    """Tested twice, the scores and masks are the same; an image's do not depend on its batch."""
    method = build().eval()
    features = _maps(method.taps, 3)
    first, again = _check_scores(method, features), _check_scores(method, features)
    if not torch.equal(first, again):
        raise BrokenContract('forward gives other scores the second time, in testing')
    masks = zip(_check_masks(method, features), _check_masks(method, features), strict=True)
    if not all(torch.equal(a, b) for a, b in masks):
        raise BrokenContract('attention gives other masks the second time, in testing')
    alone = torch.cat([_check_scores(method, [f[i : i + 1] for f in features]) for i in range(3)])
    if not torch.allclose(alone, first, atol=1e-4, rtol=1e-4):
        raise BrokenContract("an image's scores depend on the others in its batch, in testing")


def _memory(method: nn.Module) -> dict[str, object]:
    """All that is stored in a method, by name, but parameters and buffers."""
    found = {}
    for path, module in method.named_modules():
        for key, value in vars(module).items():
            if not key.startswith('_'):
                size = len(value) if isinstance(value, (list, dict, set)) else 0
                found[f'{path}.{key}'.lstrip('.')] = (id(value), size)
            elif key not in vars(nn.Module()):
                found[f'{path}.{key}'.lstrip('.')] = id(value)
    return found


def _check_memory(build: Callable[[], Method]) -> None:
    """Nothing is remembered between calls but parameters and, in training, buffers."""
    method = build()
    features, target = _maps(method.taps, 2), torch.tensor([0, 1])
    for training in (True, False):
        method.train(training)
        before, state = _memory(method), copy.deepcopy(method.state_dict())
        method(features)
        _attention(method, features)
        method.loss(features, target)
        after = _memory(method)
        changed = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
        if changed:
            raise BrokenContract(
                f'{", ".join(changed)} is remembered between calls: return it, or register a buffer'
            )
    changed = [k for k, v in method.state_dict().items() if not torch.equal(v, state[k])]
    if changed:
        raise BrokenContract(f'{", ".join(changed)} changes in testing')


def _check_weights(build: Callable[[], Method]) -> None:
    """Weights saved and loaded give the same scores."""
    one, other = build().eval(), build().eval()
    features = _maps(one.taps, 2)
    other.load_state_dict(one.state_dict())
    if not torch.equal(_check_scores(one, features), _check_scores(other, features)):
        raise BrokenContract('the scores are others after load_state_dict: something is not saved')


def _check_targets(build: Callable[[], Method]) -> None:
    """Class probabilities (Mixup, label smoothing) are taken, and mean what indices mean."""
    method = build().eval()
    features, target = _maps(method.taps, 3), torch.arange(3)
    hard = _check_terms(method.loss(features, target))
    soft = _check_terms(
        _call('loss with targets (N, Y)', method.loss, features, torch.eye(CLASSES)[target])
    )
    if any(not torch.allclose(hard[k], soft.get(k, hard[k] + 1), atol=1e-4) for k in hard):
        raise BrokenContract('loss differs between class indices and the same as probabilities')


def _check_refusals(build: Callable[[], Method]) -> None:
    """Maps that it was not built for are refused by a ValueError."""
    method = build().eval()
    features = _maps(method.taps, 2)
    try:
        method([*features[:-1], features[-1][:, :-1]])
    except ValueError:
        return
    except Exception as error:
        found = f'ends in a {type(error).__name__}'
    else:
        found = 'is taken'
    raise BrokenContract(
        f'a map of the wrong number of channels {found}, it must be a ValueError: let forward '
        'begin with self.check_features(features)'
    )


def _check_regularizer(build: Callable[[], Method]) -> None:
    """What exists in training only gives terms of its own and trains all of its parameters."""
    method = build().train()
    part = method.regularizer()
    if part is None:
        return
    if not isinstance(part, Regularizer):
        raise BrokenContract(
            f'regularizer gives {_describe(part)}, it must give an fgplugins.methods.Regularizer'
        )
    features, target = _maps(method.taps, 2), torch.tensor([0, 1])
    last = features[-1]

    def second(images: Tensor) -> list[Tensor]:
        spread = torch.linspace(-1, 1, last.shape[1])[:, None, None]
        return [images.mean(dim=1, keepdim=True).tanh() * spread for _ in features]

    images = torch.randn(2, 3, 12, 8)
    terms = _check_terms(
        _call('the regularizer', part, images, features, target, second), 'the regularizer'
    )
    views = _call("the regularizer's show", part.show, images, features)
    if not isinstance(views, dict) or not all(
        isinstance(name, str) and isinstance(view, Tensor) and view.ndim == 4 and len(view) == 2
        for name, view in views.items()
    ):
        raise BrokenContract(
            f"the regularizer's show gives {_describe(views)}, it must give a dict of named views "
            '(N, channels, h, w), here with N=2'
        )
    shared = sorted(set(terms) & set(method.loss(features, target)))
    if shared:
        raise BrokenContract(f'the regularizer and loss both have a term {shared[0]!r}')
    sum(terms.values()).backward()
    unused = [name for name, p in part.named_parameters() if p.grad is None]
    if unused:
        raise BrokenContract(f'the regularizer has no gradient for {", ".join(unused)}')


CHECKS = (
    _check_batches,
    _check_gradients,
    _check_determinism,
    _check_memory,
    _check_weights,
    _check_targets,
    _check_refusals,
    _check_regularizer,
)


def check_method(cls: type[Method], **hyperparameters: object) -> None:
    """Hold a method to the whole contract, on small random maps.

    Batches of one, two and three in training and testing; a gradient for every parameter; the same
    scores and masks twice, whatever else is in the batch; nothing remembered; weights that save
    all; soft targets; wrong maps refused; and what exists in training only.

    Args:
        cls: the method; registered or not.
        **hyperparameters: by the method's own names.

    Raises:
        BrokenContract: with every point that it breaks.
    """
    problems = []
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        check_returns(cls, **hyperparameters)
        for check in CHECKS:
            torch.manual_seed(0)
            try:
                check(lambda: _build(cls, hyperparameters))
            except BrokenContract as error:
                problems.append(str(error))
            except Exception as error:
                problems.append(f'{type(error).__name__}: {error}')
    if problems:
        raise BrokenContract('; '.join([f'{_owner(cls)}: {problems[0]}', *problems[1:]]))
