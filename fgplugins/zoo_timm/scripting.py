"""Composed models for ``torch.jit.script``, which takes a part of Python only.

A model that is its network is scripted as timm scripts that; what cannot be is traced.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fgplugins.methods import Method
from fgplugins.utils.modes import in_testing

__all__ = ['ScriptedNetwork', 'TracedModel', 'trace_method']


class _Traced(nn.Module):
    """A module as it runs in testing, in the form that ``torch.jit.script`` takes.

    Args:
        module: the module.
        *example: what it is run on once.
    """

    def __init__(self, module: nn.Module, *example: Tensor | list[Tensor]) -> None:
        super().__init__()
        with torch.no_grad(), in_testing(module), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of sizes that are read in Python
            self.traced = torch.jit.trace(module, example, check_trace=False)


@contextlib.contextmanager
def _scripted_above(network: nn.Module) -> Iterator[None]:
    """Inside, the parts of a network above its maps are scripted, those that can be.

    A trace of them would hold for maps of one size, where they ask for that.
    """
    names = [name for name, _ in network.named_children()]
    part = network.feature_info[-1].get('module', '').partition('.')[0]
    above = names[names.index(part) + 1 :] if part in names else []
    kept = {name: network.get_submodule(name) for name in above}
    for name, module in kept.items():
        with contextlib.suppress(Exception):  # of whatever kind of Python it is
            network.set_submodule(name, torch.jit.script(module))
    try:
        yield
    finally:
        for name, module in kept.items():
            network.set_submodule(name, module)


class TracedModel(_Traced):
    """A traced model: a function of images.

    Args:
        model: the model, of a network with maps.
        example: images.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        with in_testing(model), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with _scripted_above(model.backbone):
                super().__init__(model, example)

    def forward(self, x: Tensor) -> Tensor:
        return self.traced(x)


class _Network(nn.Module):
    """A network with its head, and its classifier, in the part of Python that scripting takes."""

    def __init__(self, network: nn.Module, drop: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.network, self.drop, self.classifier = network, drop, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.drop(self.network(x)))


class ScriptedNetwork(nn.Module):
    """A model that is its network, scripted: sizes that it asks for in Python stay open.

    Args:
        parts: the network without its classifier, dropout and the classifier.
        model: of these parts.
        example: images.

    Raises:
        RuntimeError: if it cannot be scripted.
    """

    def __init__(self, parts: Sequence[nn.Module], model: nn.Module, example: Tensor) -> None:
        super().__init__()
        with torch.no_grad(), in_testing(model), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            self.scripted = torch.jit.script(_Network(*parts))
            if not torch.equal(self.scripted(example), model(example)):
                raise RuntimeError('the network without its classifier is more than its head')

    def forward(self, x: Tensor) -> Tensor:
        return self.scripted(x)


class _TracedMethod(_Traced):
    """A traced method: a function of maps."""

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.traced(features)


class _TracedReader(_Traced):
    """A traced method that reads the embedding besides."""

    def forward(self, features: list[Tensor], embedding: Tensor) -> Tensor:
        return self.traced(features, embedding)


def trace_method(method: Method, shapes: Sequence[tuple[int, ...]]) -> nn.Module:
    """A method, traced on maps of these shapes."""
    weight = next(method.parameters())
    maps = [weight.new_zeros(shape) for shape in shapes]
    if method.embedding_channels is None:
        return _TracedMethod(method, maps)
    return _TracedReader(method, maps, weight.new_zeros(1, method.embedding_channels))
