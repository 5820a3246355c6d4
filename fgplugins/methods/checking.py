"""Whether a method keeps the whole contract: for whoever writes one.

A package's tests need one line, and so do ours:

    fgplugins.check_method(Mine)
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fgplugins.methods.base import Given, Method, Regularizer
from fgplugins.methods.registration_check import (
    CLASSES,
    BrokenContract,
    attention_of,
    build_method,
    check_masks,
    check_returns,
    check_scores,
    check_terms,
    describe,
    embedding_of,
    guarded,
    owner_of,
    random_inputs,
    random_target,
)

__all__ = ['BrokenContract', 'check_method', 'check_returns']

EMBEDDING = 24  # channels, as no map has


def _batches() -> Iterator[tuple[bool, int, str]]:
    """One, two and three images, in training and in testing, and the words for it."""
    for training in (True, False):
        for N in (1, 2, 3):
            yield training, N, f'in {"training" if training else "testing"}, with a batch of {N}'


def _check_batches(build: Callable[[], Method]) -> None:
    """What is returned for every size of a batch; every parameter is trained by the loss."""
    for training, N, words in _batches():
        method = build().train(training)
        features, given = random_inputs(method, N)
        try:
            check_scores(method, features, given)
            check_masks(method, features, given)
            target = random_target(method, N)
            terms = check_terms(guarded('loss', method.loss, features, target, **given))
        except BrokenContract as error:
            raise BrokenContract(f'{words}: {error}') from error
        _check_gradients(method, terms, f'{words}: the loss')


def _check_gradients(module: nn.Module, terms: dict[str, Tensor], whose: str) -> None:
    sum(terms.values()).backward()
    unused = [name for name, p in module.named_parameters() if p.grad is None]
    if unused:
        raise BrokenContract(
            f'{whose} has no gradient for {", ".join(unused)}: what is not trained must not be a '
            'parameter (distributed training stops at it)'
        )


def _check_determinism(build: Callable[[], Method]) -> None:
    """Tested twice, the scores and masks are the same; an image's do not depend on its batch."""
    method = build().eval()
    features, given = random_inputs(method, 3)
    first, again = check_scores(method, features, given), check_scores(method, features, given)
    if not torch.equal(first, again):
        raise BrokenContract('forward gives other scores the second time, in testing')
    masks = zip(
        check_masks(method, features, given), check_masks(method, features, given), strict=True
    )
    if not all(torch.equal(a, b) for a, b in masks):
        raise BrokenContract('attention gives other masks the second time, in testing')
    alone = torch.cat(
        [
            check_scores(
                method,
                [f[i : i + 1] for f in features],
                {key: value[i : i + 1] for key, value in given.items()},
            )
            for i in range(3)
        ]
    )
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
    (features, given), target = random_inputs(method, 2), random_target(method, 2)
    for training in (True, False):
        method.train(training)
        before, state = _memory(method), copy.deepcopy(method.state_dict())
        method(features, **given)
        attention_of(method, features, given)
        method.loss(features, target, **given)
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
    features, given = random_inputs(one, 2)
    other.load_state_dict(one.state_dict())
    if not torch.equal(check_scores(one, features, given), check_scores(other, features, given)):
        raise BrokenContract('the scores are others after load_state_dict: something is not saved')


def _check_targets(build: Callable[[], Method]) -> None:
    """Class probabilities (Mixup, label smoothing) are taken, and mean what indices mean."""
    method = build().eval()
    if method.multi_label:
        return
    (features, given), target = random_inputs(method, 3), random_target(method, 3)
    hard = check_terms(method.loss(features, target, **given))
    onehot = torch.eye(CLASSES)[target]
    soft = check_terms(guarded('loss with targets (N, Y)', method.loss, features, onehot, **given))
    if any(not torch.allclose(hard[k], soft.get(k, hard[k] + 1), atol=1e-4) for k in hard):
        raise BrokenContract('loss differs between class indices and the same as probabilities')


def _check_refusals(build: Callable[[], Method]) -> None:
    """Maps that it was not built for are refused by a ValueError."""
    method = build().eval()
    (*others, last), given = random_inputs(method, 2)
    wrong_inputs = [
        ('a map of the wrong number of channels', [*others, last[:, :-1]], given),
        ('something that is not a map (N, C, H, W)', [*others, last.flatten(2)], given),
    ]
    if given:
        narrow = {'embedding': given['embedding'][:, :-1]}
        wrong_inputs += [
            ('an embedding of the wrong number of channels', [*others, last], narrow),
            ('an embedding that is missing', [*others, last], {}),
        ]
    for what, wrong, keywords in wrong_inputs:
        try:
            method(wrong, **keywords)
        except ValueError:
            continue
        except Exception as error:
            found = f'ends in a {type(error).__name__}'
        else:
            found = 'is taken'
        raise BrokenContract(
            f'{what} {found}, it must be a ValueError: let forward begin with '
            'self.check_features(features), or with self.embed(features, embedding)'
        )


def _check_paper_form(build: Callable[[], Method]) -> None:
    """`forward_paper`, where there is one, is the same function: reports compare their costs."""
    method = build().double().eval()
    if type(method).forward_paper is Method.forward_paper:
        return
    features, given = random_inputs(method, 2, torch.float64)
    ours = method(features, **given)
    paper = guarded('forward_paper', method.forward_paper, features, **given)
    if ours.shape != paper.shape or not torch.allclose(ours, paper, atol=1e-10, rtol=0):
        raise BrokenContract('forward_paper gives other scores than forward, in float64')


def _check_bfloat16(build: Callable[[], Method]) -> None:
    """Mixed precision, as on a CPU, and weights in bfloat16 give finite numbers."""
    method = build().train()
    features, given = random_inputs(method, 3)
    try:
        with torch.autocast('cpu', torch.bfloat16):
            check_scores(method, features, given)
            target = random_target(method, 3)
            terms = check_terms(guarded('loss', method.loss, features, target, **given))
        sum(terms.values()).backward()
        for name, p in method.named_parameters():
            if p.grad is not None and not p.grad.isfinite().all():
                raise BrokenContract(f'the gradient of {name} is not finite')
        half = {key: value.bfloat16() for key, value in given.items()}
        check_scores(method.bfloat16().eval(), [f.bfloat16() for f in features], half)
    except BrokenContract as error:
        raise BrokenContract(f'in bfloat16: {error}') from error


def _check_regularizer(build: Callable[[], Method]) -> None:
    """What exists in training only gives terms of its own and trains all of its parameters."""
    part = build().regularizer()
    if part is None:
        return
    if not isinstance(part, Regularizer):
        raise BrokenContract(
            f'regularizer gives {describe(part)}, it must give an fgplugins.methods.Regularizer'
        )
    for training, N, words in _batches():
        try:
            _check_part(build().train(training), N)
        except BrokenContract as error:
            raise BrokenContract(f'{words}: {error}') from error


def _check_part(method: Method, N: int) -> None:
    part = method.regularizer().train(method.training)
    (features, given), target = random_inputs(method, N), random_target(method, N)

    def second(images: Tensor) -> Given:
        brightness = images.mean(dim=1, keepdim=True).tanh()
        maps = [brightness * torch.linspace(-1, 1, C)[:, None, None] for C in method.in_channels]
        embedding = embedding_of(method, maps)
        return (maps, embedding['embedding']) if embedding else maps

    images = torch.randn(N, 3, 12, 8)
    terms = check_terms(
        guarded('the regularizer', part, images, features, target, second, **given),
        'the regularizer',
    )
    views = guarded("the regularizer's show", part.show, images, features, **given)
    if not isinstance(views, dict) or not all(
        isinstance(name, str) and isinstance(view, Tensor) and view.ndim == 4 and len(view) == N
        for name, view in views.items()
    ):
        raise BrokenContract(
            f"the regularizer's show gives {describe(views)}, it must give a dict of named views "
            f'(N, channels, h, w), here with N={N}'
        )
    shared = sorted(set(terms) & set(method.loss(features, target, **given)))
    if shared:
        raise BrokenContract(f'the regularizer and loss both have a term {shared[0]!r}')
    _check_gradients(part, terms, 'the regularizer')


CHECKS = (
    _check_batches,
    _check_determinism,
    _check_memory,
    _check_weights,
    _check_targets,
    _check_refusals,
    _check_paper_form,
    _check_bfloat16,
    _check_regularizer,
)


def check_method(cls: type[Method], **hyperparameters: object) -> None:
    """Hold a method to the whole contract, on small random maps.

    With and without an embedding, if it reads one. Batches of one, two and three in training and
    testing; a gradient for every parameter; the same scores and masks twice, whatever else is in
    the batch; nothing remembered; weights that save all; soft targets; wrong maps refused; the
    paper's form; bfloat16; and what exists in training only.

    Args:
        cls: the method; registered or not.
        **hyperparameters: by the method's own names.

    Raises:
        BrokenContract: with every point that it breaks.
    """
    problems = []
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        check_returns(cls, **hyperparameters)
        for D in (None, EMBEDDING) if cls.reads_embedding else (None,):
            build = functools.partial(build_method, cls, hyperparameters, D)
            words = f'with embedding_channels={D}: ' if D else ''
            for check in CHECKS:
                torch.manual_seed(0)
                try:
                    check(build)
                except BrokenContract as error:
                    problems.append(f'{words}{error}')
                except Exception as error:
                    problems.append(f'{words}{type(error).__name__}: {error}')
    if problems:
        raise BrokenContract('; '.join([f'{owner_of(cls)}: {problems[0]}', *problems[1:]]))
