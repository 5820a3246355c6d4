"""A network built with published weights or a file's, and whether a file's weights fit a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import _builder, load_state_dict
from timm.models._input import get_model_traits
from torch import Tensor, nn

from fgplugins.errors import one_line
from fgplugins.networks.packaged_weights import (
    INSTALL,
    PACKAGES,
    has_package,
    package_of,
    read_packaged,
)

__all__ = ['create_backbone', 'first_difference']

NUMPY = ('.npz', '.npy')
OURS = 'backbone.'  # before the names of a network's weights, where a method is on top


def first_difference(
    weights: dict[str, Tensor], model: nn.Module, besides: bool = True
) -> str | None:
    """The first difference between weights and a model's own, in words; None if there is none.

    Args:
        weights: name -> tensor.
        model: to be loaded.
        besides: weights that the model does not have are a difference too.
    """
    own = model.state_dict()
    for name in own:
        # old files lack these counters
        if name not in weights and not name.endswith('num_batches_tracked'):
            return f'it lacks {name}'
    for name, value in weights.items():
        if name not in own:
            if besides:
                return f'it has {name} besides'
            continue
        there, here = tuple(getattr(value, 'shape', ())), tuple(own[name].shape)
        if there != here:
            return f'{name} is {there} in it and {here} in the model'
    return None


def _source_channels(weights: dict[str, Tensor], model: nn.Module, in_chans: int) -> int | None:
    """How many image channels weights were trained on, by the first convolution that they have."""
    names = get_model_traits(model).get('first_conv') or ()
    for name in (names,) if isinstance(names, str) else names:
        weight, layer = weights.get(f'{name}.weight'), model.get_submodule(name)
        if weight is not None and weight.ndim == 4 and isinstance(layer, nn.Conv2d):
            return weight.shape[1] * in_chans * layer.groups // layer.in_channels
    return None


def _adapted(weights: dict[str, Tensor], model: nn.Module, adapt: Callable) -> dict[str, Tensor]:
    try:
        return adapt(weights, model)
    except TypeError:  # some filters of timm take the weights alone
        return adapt(weights)


def _load(
    model: nn.Module,
    path: str,
    classifier: Callable[[], tuple[set[str], set[str]]],
    cfg: dict[str, Any],
    in_chans: int = 3,
    adapt: Callable | None = None,
    strict: bool = True,
) -> None:
    """Load a file into a network, adapted as timm adapts its own weights.

    A classifier of another number of classes is left as it is.

    Args:
        model: the network, with or without classes.
        path: of the file.
        classifier: gives the names of the weights of its layers that have an output for each class,
            and of all that it has with classes only.
        cfg: the network's.
        in_chans: image channels.
        adapt: the network's own filter of weights.
        strict: whether the network's own weights are no more than it has.

    Raises:
        ValueError: in one line, if the file does not hold every weight.
    """
    refusal = f'backbone_checkpoint={path!r} does not fit'
    if path.lower().endswith(NUMPY):
        if not hasattr(model, 'load_pretrained'):
            raise ValueError(f'{refusal}: {type(model).__name__} reads no NumPy files')
        try:
            model.load_pretrained(path)
        except (AssertionError, KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f'{refusal}: {" ".join(str(error).split())[:200]}') from None
        return
    try:
        weights = load_state_dict(path)
    except Exception as error:  # of a pickle, a zip archive, safetensors
        reason = one_line(error, 200)
        raise ValueError(f'backbone_checkpoint={path!r} cannot be read: {reason}') from None
    inside = {
        k.removeprefix('backbone.'): v for k, v in weights.items() if k.startswith('backbone.')
    }
    if inside and not any(k.startswith(OURS) for k in model.state_dict()):
        weights = inside  # of a model with a method on top
    try:
        adapted = weights if adapt is None else _adapted(weights, model, adapt)
    except Exception as error:  # it expects another network's weights
        reason = first_difference(weights, model) or ' '.join(str(error).split())
        raise ValueError(f'{refusal}: {reason}') from None
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    if {k: tuple(v.shape) for k, v in adapted.items()} != own:
        names, only_with_classes = classifier()
        given = {k: tuple(getattr(v, 'shape', ())) for k, v in adapted.items() if k in names}
        if given != {k: shape for k, shape in own.items() if k in names}:
            has_none = names.isdisjoint(own)
            if has_none or (not given and only_with_classes.isdisjoint(adapted)):
                names |= only_with_classes - set(own) if has_none else only_with_classes
            adapted = {k: v for k, v in adapted.items() if k not in names}
            adapted |= {k: v for k, v in model.state_dict().items() if k in names}
    channels = _source_channels(adapted, model, in_chans)
    height, width = (cfg.get('input_size') or (3, 224, 224))[1:]
    source = {
        'state_dict': adapted,
        'input_size': (channels or 3, height, width),
        'first_conv': cfg.get('first_conv'),
    }
    failure = ''
    try:
        _builder.load_pretrained(model, source, num_classes=0, in_chans=in_chans, strict=False)
    except RuntimeError as error:
        failure = one_line(error)
    reason = first_difference(adapted, model, besides=strict) or failure
    if reason:
        raise ValueError(f'{refusal}: {reason}')


@contextmanager
def _weights_from(
    path: str, classifier: Callable[[], tuple[set[str], set[str]]]
) -> Iterator[list[nn.Module]]:
    """Inside, networks that timm builds with ``pretrained=True`` take their weights from a file.

    Only this step of timm knows how a network's weights are renamed and resampled.

    Args:
        path: of the file.
        classifier: see `_load`.

    Yields:
        The networks that did.
    """
    loaded, original = [], _builder.load_pretrained

    def load(
        model: nn.Module,
        pretrained_cfg: dict[str, Any],
        in_chans: int = 3,
        filter_fn: Callable | None = None,
        strict: bool = True,
        **rest: Any,
    ) -> None:
        _builder.load_pretrained = original
        _load(model, path, classifier, pretrained_cfg, in_chans, filter_fn, strict)
        loaded.append(model)

    _builder.load_pretrained = load
    try:
        yield loaded
    finally:
        _builder.load_pretrained = original


def _create_published(name: str, **arguments: Any) -> nn.Module:
    """A network with its published weights, from an installed package or else by timm.

    Raises:
        OSError: in one line, if they cannot be downloaded.
        ValueError: if the package holds other weights.
    """
    says_where = arguments.keys() & {'pretrained_cfg', 'pretrained_cfg_overlay'}
    if has_package(name) and not says_where:
        overlay = {'state_dict': read_packaged(name)}
        model = timm.create_model(name, True, pretrained_cfg_overlay=overlay, **arguments)
        model.pretrained_cfg.pop('state_dict')  # they are in the model now
        source = f'the installed package {package_of(name)}'
        logging.getLogger(__name__).info(f'{name}: ImageNet weights of {source}')
        return model
    try:
        return timm.create_model(name, pretrained=True, **arguments)
    except OSError as error:  # of a hub, a connection, a cache
        if package_of(name) and not says_where:
            raise OSError(
                f'the weights of {name!r} cannot be downloaded: {INSTALL} brings them'
            ) from error
        raise OSError(
            f'the weights of {name!r} cannot be downloaded: {one_line(error, 150)}; use '
            f'backbone_checkpoint=<file>, or a network of those whose weights come by {INSTALL}: '
            f'{", ".join(PACKAGES)}'
        ) from error


def create_backbone(
    name: str, pretrained: bool, checkpoint: str | Path, **arguments: Any
) -> nn.Module:
    """``timm.create_model``, with the weights of a file in place of the published ones.

    Args:
        name: of a timm model.
        pretrained: load the published weights: those of a package where it is installed.
        checkpoint: file of weights, or ''; its classifier is left out if it is of another number
            of classes.
        **arguments: of ``timm.create_model``.

    Raises:
        FileNotFoundError: if the file is not there.
        OSError: if the published weights cannot be downloaded.
        ValueError: if it does not hold every weight of the network, or more than its classifier.
    """
    if not checkpoint:
        create = _create_published if pretrained else timm.create_model
        return create(name, **arguments)
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'backbone_checkpoint={str(checkpoint)!r} is not a file')

    def classifier() -> tuple[set[str], set[str]]:
        with torch.device('meta'):
            given = {k: v for k, v in arguments.items() if k != 'device'}
            none, one, two = (
                timm.create_model(name, **{**given, 'num_classes': Y}).state_dict()
                for Y in (0, 2, 3)
            )
        without = {k for k in two if two[k].shape != one[k].shape}
        layers = tuple(k.rpartition('.')[0] + '.' for k in without)
        return {k for k in two if k.startswith(layers)}, set(two) - set(none)

    with _weights_from(str(checkpoint), classifier) as loaded:
        model = timm.create_model(name, pretrained=True, **arguments)
    if not any(model is other for other in loaded):  # not built in timm's own way
        _load(model, str(checkpoint), classifier, getattr(model, 'pretrained_cfg', {}))
    return model
