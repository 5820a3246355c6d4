"""Any timm network as what methods stand on: maps, embedding and classifier, for both zoos."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_model_input_config
from torch import Tensor, nn

from fgplugins.errors import first_line
from fgplugins.networks.classifiers import ClassifierPlace, find_classifier
from fgplugins.networks.levels import find_levels
from fgplugins.networks.reading import Reading, describe_final, tail_of
from fgplugins.networks.weights import create_backbone
from fgplugins.utils.modes import in_testing
from fgplugins.utils.probing import sizes_to_try, turn_into_buffers, unused_parameters

__all__ = ['HEADS', 'AdaptedNetwork', 'adapt_built', 'adapt_network', 'check_head']

HEADS = ('network', 'mean')


@dataclass
class AdaptedNetwork:
    """A network of timm's without its classifier, and how methods read it.

    Attributes:
        network: the network.
        reading: how it is read.
        channels: of each map that is read.
        reductions: stride of each.
        input_size: height and width of the images it is made for.
        fixed_size: the only size that it takes; None if it takes any.
        head: 'network' or 'mean'.
        classifier: the network's own, of the embedding or of the mean of the last map; None with
            ``head='mean'``.
        place: where that was.
        embedding_channels: D; None where the embedding is the mean of the last map, or not read.
        drop_rate: the network's own, of dropout in front of its classifier.
    """

    network: nn.Module
    reading: Reading
    channels: list[int]
    reductions: list[int]
    input_size: tuple[int, int]
    fixed_size: tuple[int, int] | None
    head: str
    classifier: nn.Module | None = None
    place: ClassifierPlace | None = None
    embedding_channels: int | None = None
    drop_rate: float = 0.0


def check_head(head: str | None) -> None:
    """Refuse a head that is not one.

    Raises:
        ValueError: naming those that there are.
    """
    if head is not None and head not in HEADS:
        raise ValueError(f"head={head!r}: must be 'network' or 'mean'")


@torch.inference_mode(False)  # whoever builds it there gets a network that can be trained
def adapt_network(
    name: str,
    method: str,
    num_classes: int,
    in_chans: int = 3,
    head: str | None = None,
    taps: int | None = None,
    levels: Sequence[int] | None = None,
    default_taps: int = 1,
    reads_embedding: bool = True,
    pretrained: bool = False,
    checkpoint: str | Path = '',
    probe: bool = True,
    classes_without: int | None = 0,
    **arguments: Any,
) -> AdaptedNetwork:
    """Build a network of timm's, for a method to stand on.

    Args:
        name: of any kind that ``timm.create_model`` takes.
        method: who stands on it, for messages.
        num_classes: Y of the classifier; 0 if nobody wants it.
        in_chans: image channels.
        head: 'network' (its own head and classifier) | 'mean' (its last map alone, to be averaged);
            if None its own where it has one that gives all scores from one vector, else 'mean', and
            a warning says so.
        taps: how many of its last maps are read.
        levels: which, by number.
        default_taps: how many if neither says so.
        reads_embedding: the embedding is wanted, and not the maps alone. Without it there is no
            head to speak of: levels that stop short of the last are nothing to warn of.
        pretrained: load the published weights.
        checkpoint: load the weights of this file.
        probe: run the network once, to find out what nobody says; with ``head='mean'`` it can be
            left out.
        classes_without: how many classes the network is built with, before it loses its head; its
            own number if None. The weights that a seed draws depend on it.
        **arguments: of ``timm.create_model``.

    Raises:
        ValueError: for a level that it lacks, or ``head='network'`` where that cannot be.
    """
    check_head(head)
    build = {'in_chans': in_chans, **arguments}
    ask = functools.partial(find_levels, taps=taps, levels=levels, default_taps=default_taps)
    if head != 'mean' and reads_embedding:
        adapted, reason = _with_head(name, method, num_classes, pretrained, checkpoint, build, ask)
        if adapted is not None:
            return adapted
        if head == 'network':
            raise ValueError(f"head='network': {name} {reason}; head='mean' averages its last map")
        warnings.warn(
            f"{method} on {name}: head='mean', the mean of its last map in place of its own head: "
            f'{name} {reason}',
            stacklevel=2,
        )
        head = 'mean'
    without = {} if classes_without is None else {'num_classes': classes_without}
    network = create_backbone(name, pretrained, checkpoint, **without, **build)
    chosen = ask(list(network.feature_info), method=method, backbone=name)
    reason = _stops_short(network, chosen)
    if reason and head == 'network':
        raise ValueError(f"head='network': {name} {reason}; leave head out")
    whole = head != 'mean' and not reason
    run = _that_runs(network, name, {**without, **build}) if whole and probe else None
    return _maps_alone(network, chosen, in_chans, run, 'network' if whole else 'mean', probe)


def _stops_short(network: nn.Module, levels: list[int]) -> str:
    last = len(network.feature_info) - 1
    return (
        f'has its head above level {last}, the last that is read is {levels[-1]}'
        if levels[-1] != last
        else ''
    )


def _input_sizes(network: nn.Module) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """The size of a network's images, and the only one that it takes if there is such."""
    settings = get_model_input_config(network)
    size = tuple(settings['input_size'][1:])
    return size, size if settings['fixed_input_size'] else None


def _run(
    network: nn.Module, reading: Reading, in_chans: int
) -> tuple[Tensor, object, list[Tensor]]:
    """An image of noise, and the network's final features and maps of it, with gradients.

    Sets ``reading.normalized`` to False if the network refuses to normalise its maps.

    Raises:
        ValueError: if it does not run.
    """
    size, fixed = _input_sizes(network)
    reduction = network.feature_info[reading.levels[-1]]['reduction']
    weight = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    for reading.normalized in (True, False):
        for side in sizes_to_try(size, fixed is not None, reduction):
            image = torch.randn(1, in_chans, *side, generator=generator, device='cpu')
            image = image.to(weight.device, weight.dtype)
            try:
                return image, *reading.intermediates(network, image)
            except Exception as error:  # whatever it is, use raises it again
                failure = error
    reading.normalized = True
    raise ValueError(f'does not run on an image of {size}: {first_line(failure)}') from failure


def _that_runs(network: nn.Module, name: str, arguments: dict[str, Any]) -> nn.Module:
    """The network, or another one like it that holds numbers if this one does not."""
    if not next(network.parameters()).is_meta:
        return network
    elsewhere = {k: v for k, v in arguments.items() if k not in ('device', 'dtype')}
    with torch.device('cpu'):
        return timm.create_model(name, **elsewhere)


def _with_head(
    name: str,
    method: str,
    num_classes: int,
    pretrained: bool,
    checkpoint: str | Path,
    build: dict[str, Any],
    ask: Callable[..., list[int]],
) -> tuple[AdaptedNetwork | None, str]:
    """The network with its head, or None and the reason why it cannot keep it."""
    arguments = {'num_classes': num_classes or 2, **build}
    network = create_backbone(name, pretrained, checkpoint, **arguments)
    drop_rate = float(getattr(network, 'drop_rate', None) or 0)
    if drop_rate:  # it is to be applied once, by the method
        arguments['drop_rate'] = 0.0
        network = create_backbone(name, pretrained, checkpoint, **arguments)
    levels = ask(list(network.feature_info), method=method, backbone=name)
    reason = _stops_short(network, levels)
    if reason:
        return None, reason
    adapted, reason = adapt_built(network, name, levels, arguments)
    if adapted is not None:
        adapted.drop_rate = drop_rate
    return adapted, reason


def adapt_built(
    network: nn.Module, name: str, levels: list[int], arguments: dict[str, Any]
) -> tuple[AdaptedNetwork | None, str]:
    """A network with its head and classifier as what methods stand on.

    Args:
        network: of timm.
        name: its name.
        levels: which of its maps are read.
        arguments: of ``timm.create_model`` that built it.

    Returns:
        None, and the reason why its head cannot be kept, if its classifier does not give all
        scores from one vector.
    """
    classifier = getattr(network, 'get_classifier', nn.Identity)()
    if isinstance(classifier, nn.Identity):
        return None, 'has no classifier'
    run = _that_runs(network, name, arguments)
    with in_testing(run), torch.enable_grad():
        try:
            found = _explore(run, Reading(levels), arguments['in_chans'])
        except ValueError as error:
            return None, str(error)
    if found is None:
        return None, 'has a classifier that reads more than one vector'
    classifier = found.place.take(network)
    turn_into_buffers(network, found.unused)
    size, fixed = _input_sizes(network)
    adapted = AdaptedNetwork(
        network,
        found.reading,
        found.channels,
        [network.feature_info[i]['reduction'] for i in levels],
        size,
        fixed,
        'network',
        classifier,
        found.place,
        found.embedding_channels,
    )
    return adapted, ''


@dataclass
class _Found:
    """What running a network with its head shows."""

    reading: Reading
    place: ClassifierPlace
    channels: list[int]
    embedding_channels: int | None
    unused: list[str]


def _explore(network: nn.Module, reading: Reading, in_chans: int) -> _Found | None:
    """Find out how a network with its head is read; it is as it was afterwards.

    Returns:
        None if its classifier does not give all scores from one vector.
    """
    image, final, maps = _run(network, reading, in_chans)
    place = find_classifier(network, image, final)
    if place is None:
        return None
    with place.taken(network):
        reading.final, reading.prefix = describe_final(final, maps[-1])
        last = maps[-1]
        if reading.final is not None:
            last = reading.last_map(final, last)
            final = reading.as_final(final, last)
        z = network.forward_head(final)
        tail = tail_of(z, last)
        if tail == 'nothing' and reading.final == 'tokens':  # the level's map is the same
            reading.final, last = None, maps[-1]
        maps = [*maps[:-1], last]
        reading.embedding = tail != 'mean'
        unused = unused_parameters(network, [*maps, z])
    channels = [m.shape[1] for m in maps]
    return _Found(reading, place, channels, z.shape[1] if reading.embedding else None, unused)


def _maps_alone(
    network: nn.Module,
    levels: list[int],
    in_chans: int,
    whole: nn.Module | None,
    head: str,
    probe: bool,
) -> AdaptedNetwork:
    """The network up to the last map that is read; nothing above it stays.

    Args:
        network: without classes.
        levels: to read.
        in_chans: image channels.
        whole: a network like it that runs, if the last map is to be what the head reads where that
            is another than the last level's.
        head: 'network' or 'mean'.
        probe: run the network once.
    """
    reading, info = Reading(levels), list(network.feature_info)
    channels = [info[i]['num_chs'] for i in levels]
    size, fixed = _input_sizes(network)
    if whole is not None:
        with in_testing(whole), torch.no_grad(), contextlib.suppress(ValueError):
            _, final, maps = _run(whole, reading, in_chans)
            last = maps[-1]
            form, reading.prefix = describe_final(final, last)
            if form is not None:
                last = Reading(levels, final=form, prefix=reading.prefix).last_map(final, last)
            if last.shape != maps[-1].shape or not torch.allclose(last, maps[-1]):
                reading.final = form
                channels[-1] = last.shape[1]
    if reading.final is None:
        reading.levels = list(network.prune_intermediate_layers(levels, prune_head=True))
    if probe:
        with in_testing(network), torch.enable_grad(), contextlib.suppress(ValueError):
            _, final, maps = _run(network, reading, in_chans)
            if reading.final is not None:
                maps = [*maps[:-1], reading.last_map(final, maps[-1])]
                for name in _modules_above(network, maps, network.forward_head(final)):
                    network.set_submodule(name, nn.Identity())
            # what timm leaves when it prunes, or branches that end beside the maps
            turn_into_buffers(network, unused_parameters(network, maps))
    reductions = [info[i]['reduction'] for i in levels]
    return AdaptedNetwork(network, reading, channels, reductions, size, fixed, head)


def _modules_above(network: nn.Module, maps: list[Tensor], embedding: Tensor) -> list[str]:
    """The largest modules that the embedding depends on, and no map."""
    beside = set(unused_parameters(network, [*maps, embedding]))
    above = set(unused_parameters(network, maps)) - beside
    found: list[str] = []
    for path, module in network.named_modules():
        inside = [f'{path}.{name}' for name, _ in module.named_parameters()]
        covered = any(path.startswith(f'{outer}.') for outer in found)
        if path and inside and above.issuperset(inside) and not covered:
            found.append(path)
    return found
