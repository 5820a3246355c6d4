"""A timm network's own classifier: where it is, and how it is taken out of the network.

Without its classifier, ``forward_head`` gives what the classifier reads: the embedding (N, D).
Which of a few forms the classifier has is found by running the network, not by names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['ClassifierPlace', 'find_classifier']


class PositionClassifier(nn.Module):
    """A 1x1 convolution, as a classifier of vectors (N, D); it has the convolution's weights."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, z: Tensor) -> Tensor:
        return F.conv2d(z[:, :, None, None], self.weight, self.bias).flatten(1)


class MeanClassifier(nn.ModuleList):
    """The mean of the scores of several classifiers, as networks trained by distillation have."""

    def forward(self, z: Tensor) -> Tensor:
        return sum(layer(z) for layer in self) / len(self)


class ClassifierPlace:
    """Where a network's classifier is: the modules whose place an `nn.Identity` takes.

    Args:
        names: of the modules in the network.
        layers: names in the network of the layers in them that have an output for each class.
    """

    def __init__(self, names: Sequence[str], layers: Sequence[str]) -> None:
        self.names, self.layers = tuple(names), tuple(layers)

    def take(self, network: nn.Module) -> nn.Module:
        """Take the classifier out: a function of embeddings (N, D), with its layers as they are."""
        taken = [network.get_submodule(name) for name in self.names]
        for name in self.names:
            network.set_submodule(name, nn.Identity().train(network.training))
        taken = [PositionClassifier(m) if isinstance(m, nn.Conv2d) else m for m in taken]
        return taken[0] if len(taken) == 1 else MeanClassifier(taken)

    @property
    def names_inside(self) -> list[str]:
        """Names of ``layers`` in the classifier that `take` gives; '' is itself."""
        found = []
        for layer in self.layers:
            # 'head' does not hold 'head_dist.linear'
            holders = ((k, n) for k, n in enumerate(self.names) if f'{layer}.'.startswith(f'{n}.'))
            k, name = next(holders)
            path = [str(k)] if len(self.names) > 1 else []
            found.append('.'.join([*path, *layer[len(name) :].split('.')[1:]]))
        return found

    def weights(self, classifier: nn.Module) -> dict[str, Tensor]:
        """A classifier's weights, under their names in the network."""
        modules = classifier if isinstance(classifier, MeanClassifier) else [classifier]
        return {
            f'{name}.{key}': value
            for name, module in zip(self.names, modules, strict=True)
            for key, value in module.state_dict().items()
        }

    @contextmanager
    def taken(self, network: nn.Module) -> Iterator[nn.Module]:
        """Inside, the classifier is out of the network."""
        layers = {name: network.get_submodule(name) for name in self.names}
        try:
            yield self.take(network)
        finally:
            for name, layer in layers.items():
                network.set_submodule(name, layer)


def _candidates(names: Sequence[str]) -> Iterator[ClassifierPlace]:
    """Places to try: the layers that are named, then the modules that hold them."""
    parts = [name.split('.') for name in names]
    for dropped in range(min(map(len, parts))):
        held = ('.'.join(p[: len(p) - dropped]) for p in parts)
        yield ClassifierPlace(list(dict.fromkeys(held)), names)


@contextmanager
def _shaken(network: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Inside, the layers of these names have random weights, and what stands beside them scales.

    Those of a new classifier can all be zero, and new normalisations are alike.
    """
    layers = [network.get_submodule(name) for name in names]
    beside = [network.get_submodule(n.rpartition('.')[0]) for n in names if '.' in n]
    scales = [t for module in beside for t in module.state_dict().values() if t.ndim == 1]
    tensors = [*scales, *(t for layer in layers for t in layer.state_dict().values())]
    unlike = {t.data_ptr(): t for t in tensors if t.is_floating_point()}
    tensors = list(unlike.values())
    kept = [t.clone() for t in tensors]
    generator = torch.Generator().manual_seed(0)
    for t in tensors:
        t.copy_(torch.rand(t.shape, generator=generator, device='cpu') + 0.5)
        if t.ndim > 1:
            t.sub_(1)
    try:
        yield
    finally:
        for t, value in zip(tensors, kept, strict=True):
            t.copy_(value)


def _close(ours: Tensor, theirs: Tensor) -> bool:
    tolerance = math.sqrt(torch.finfo(theirs.dtype).eps) / 10  # 3e-5 in float32
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def _reproduces(network: nn.Module, place: ClassifierPlace, image: Tensor, final: object) -> bool:
    """Whether the classifier of the embedding gives the network's scores of an image."""
    with _shaken(network, place.names):
        scores = network(image)
        with place.taken(network) as classifier:
            try:
                z = network.forward_head(final)
                ours = classifier(z)
            except Exception:  # whatever a layer in the wrong place raises
                return False
    both = isinstance(z, Tensor) and isinstance(scores, Tensor)
    return both and z.ndim == 2 and ours.shape == scores.shape and _close(ours, scores)


@torch.no_grad()
def find_classifier(network: nn.Module, image: Tensor, final: object) -> ClassifierPlace | None:
    """Where the classifier is that gives all of a network's scores from one vector (N, D).

    Args:
        network: of timm, with classes, in eval mode; as it was afterwards.
        image: (N, channels, H, W).
        final: what ``forward_intermediates`` gives for it as the final features.

    Returns:
        None if there is no such classifier.
    """
    names = getattr(network, 'pretrained_cfg', {}).get('classifier')
    names = [names] if isinstance(names, str) else list(names or [])
    present = dict(network.named_modules())
    names = [n for n in names if n in present and not isinstance(present[n], nn.Identity)]
    if not names:
        return None
    for place in _candidates(names):
        if _reproduces(network, place, image, final):
            return place
    return None
