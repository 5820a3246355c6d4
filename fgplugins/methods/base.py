"""The contract every attention method meets, and the registry that names them.

One alphabet of shapes serves every file of this package:

    N  images in the batch          S  feature maps (levels) a method reads
    C  channels of a map            H, W  height and width of a map
    K  attention heads of a level   Y  classes to tell apart

``features`` is always a sequence of S maps (N, C_s, H_s, W_s), shallow to deep; ``target`` is (N,)
class indices or (N, Y) class probabilities; scores are (N, Y) and their argmax is the prediction.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points

import torch
from fvcore.common.registry import Registry
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

__all__ = [
    'METHODS',
    'BatchNorm',
    'Method',
    'Regularizer',
    'check_gradient_path',
    'get_method',
    'list_methods',
    'negative_log_likelihood',
    'on_register',
    'register_method',
    'scale_gradient',
    'without_float16',
]


class Regularizer(nn.Module):
    """What a method has in training only: it looks at the images again, through a second network.

    The zoo's adapter owns the second network, of the backbone's architecture, and registers both
    beside the model; neither is part of the model that is deployed.
    """

    def forward(
        self,
        images: Tensor,
        features: Sequence[Tensor],
        target: Tensor,
        second: Callable[[Tensor], Sequence[Tensor]],
    ) -> dict[str, Tensor]:
        """Named scalar terms, added to those of `Method.loss`.

        Args:
            images: (N, channels, H, W), as the backbone got them.
            features: the S maps it gave.
            target: (N,) or (N, Y).
            second: images -> S maps, by the second network.
        """
        raise NotImplementedError

    def show(self, images: Tensor, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Named views of the images that it trains on, each (N, channels, h, w), for pictures.

        None, for most.

        Args:
            images: (N, channels, H, W), as the backbone got them.
            features: the S maps it gave.
        """
        return {}


class Method(nn.Module):
    """What is put on top of a backbone: the maps go in, the scores and the training loss come out.

    A subclass writes ``forward``, ``attention`` and ``loss``, sets ``default_taps`` and registers
    itself with `register_method`. Nothing is remembered between calls but parameters and buffers.

    Args:
        in_channels: channels of each map it will be given, shallow to deep.
        num_classes: number of classes to tell apart.

    Attributes:
        default_taps: how many of the backbone's last maps the method reads when nobody says.
        taps: how many this instance reads.
        needs_gradient_path: the method differentiates scores with respect to the maps below the
            last, so each must be the very tensor that the backbone continues from.
        multi_label: an image can have several classes: scores are independent logits, targets
            (N, Y) of zeros and ones.
        head_names: what the heads of `attention` show, where they are not alike.

    Raises:
        ValueError: if there are no maps, or ``num_classes`` is not positive.
    """

    default_taps: int = 1
    needs_gradient_path: bool = False
    multi_label: bool = False
    head_names: Sequence[str] = ()

    def __init__(self, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        name = type(self).__name__
        if len(in_channels) == 0 or any(c < 1 for c in in_channels):
            raise ValueError(
                f'{name}: in_channels={list(in_channels)}: give the channels of at least one map'
            )
        if num_classes < 1:
            raise ValueError(f'{name}: num_classes={num_classes}: needs at least 1 class')
        self.in_channels = tuple(int(c) for c in in_channels)
        self.num_classes = int(num_classes)

    @property
    def taps(self) -> int:
        return len(self.in_channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Scores (N, Y) of S maps (N, C_s, H_s, W_s); the same function in training and testing."""
        raise NotImplementedError

    def attention(self, features: Sequence[Tensor]) -> list[Tensor]:
        """What a figure shows: one (N, K, H_s, W_s) stack of non-negative masks per level read."""
        raise NotImplementedError

    def loss(self, features: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """Named scalar terms; training minimises their sum."""
        raise NotImplementedError

    def recording(self) -> AbstractContextManager:
        """What surrounds the backbone's forward pass in training; nothing, for most methods."""
        return nullcontext()

    def regularizer(self, view_size: tuple[int, int] | None = None) -> Regularizer | None:
        """A new training-only part, where the method has one.

        Args:
            view_size: the only (height, width) that the second network takes; None if it takes any.
        """
        return None

    @property
    def has_regularizer(self) -> bool:
        return type(self).regularizer is not Method.regularizer

    @contextmanager
    def looking_at(self, images: Tensor) -> Iterator[Tensor]:
        """What `attention` needs around the computation of its maps.

        Gives the images back, with gradients on where the method differentiates scores (whatever
        is frozen in the backbone), and with gradients off elsewhere.
        """
        with torch.inference_mode(False), torch.set_grad_enabled(self.needs_gradient_path):
            yield images.detach().clone().requires_grad_(self.needs_gradient_path)

    def forward_paper(self, features: Sequence[Tensor]) -> Tensor:
        """The scores in the paper's own order of operations: what reports compare ours with.

        The same function of the same parameters as `forward`. A method that already computes in
        the paper's order has nothing to add.
        """
        return self(features)

    def check_features(self, features: Sequence[Tensor]) -> None:
        """Refuse maps that are not the ones this instance was built for.

        Raises:
            ValueError: if the number of maps or the channels of one of them differ.
        """
        given = [tuple(f.shape) for f in features]
        if any(len(shape) != 4 for shape in given):
            raise ValueError(
                f'{type(self).__name__} reads maps of shape (N, C, H, W), it was given {given}'
            )
        if [shape[1] for shape in given] != list(self.in_channels):
            raise ValueError(
                f'{type(self).__name__} was built for {self.taps} map(s) of in_channels='
                f'{list(self.in_channels)}, the backbone gives {[shape[1] for shape in given]}: '
                'set in_channels to what the backbone gives, or choose other levels'
            )


class _MethodRegistry(Registry):
    """fvcore's registry, under names that are given rather than taken from the class."""

    def add(self, name: str, cls: type[Method]) -> None:
        if name in self:
            owner = self.get(name)
            raise ValueError(
                f'method {name!r} of {cls.__module__} is already taken by '
                f'{owner.__module__}.{owner.__qualname__}: choose another name'
            )
        alike = [other for _, other in self if other.__name__ == cls.__name__]
        if alike:
            raise ValueError(
                f'method {name!r}: {cls.__module__}.{cls.__qualname__} would be the MMPretrain '
                f'head {cls.__name__}Head, as {alike[0].__module__}.{alike[0].__qualname__} is '
                'already: choose another class name'
            )
        self._do_register(name, cls)


METHODS = _MethodRegistry('METHODS')
_listeners: list[Callable[[str, type[Method]], None]] = []
_searched: set[str] = set()


def _check_contract(name: str, cls: type) -> None:
    """Refuse a class that cannot be a method, naming its owner and what is missing."""
    owner = f'{getattr(cls, "__module__", "?")}.{getattr(cls, "__qualname__", cls)}'
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise TypeError(f'method {name!r}: {owner} is not a subclass of fgplugins.Method')
    if not name.isidentifier() or name != name.lower():
        raise ValueError(
            f'method name {name!r} of {owner}: must be a lower-case Python identifier, since it '
            f'becomes the timm model name, as in timm.create_model({name.lower()!r})'
        )
    missing = [m for m in ('forward', 'attention', 'loss') if getattr(cls, m) is getattr(Method, m)]
    if missing:
        raise TypeError(f'method {name!r}: {owner} does not define {", ".join(missing)}')
    arguments = list(inspect.signature(cls.__init__).parameters)[1:3]
    if arguments != ['in_channels', 'num_classes']:
        raise TypeError(
            f'method {name!r}: {owner}.__init__ must take (in_channels, num_classes, ...) first, '
            f'it takes ({", ".join(arguments)})'
        )


def register_method(name: str) -> Callable[[type[Method]], type[Method]]:
    """Class decorator: make a `Method` known under ``name`` to both zoos and to every tool.

    Args:
        name: the lower-case key; ``timm.create_model(name, backbone=...)`` builds it, and a class
            ``Mine`` becomes the MMPretrain head ``MineHead``.

    Raises:
        TypeError: if the class is not a `Method`, lacks a member of the contract or does not take
            ``(in_channels, num_classes)`` first.
        ValueError: if the name or the class's own is taken (both owners are named), or the name is
            not an identifier.
    """

    def decorate(cls: type[Method]) -> type[Method]:
        _check_contract(name, cls)
        METHODS.add(name, cls)
        for listener in _listeners:
            listener(name, cls)
        return cls

    return decorate


def on_register(listener: Callable[[str, type[Method]], None]) -> None:
    """Call ``listener(name, cls)`` for every method known now and every one that comes later."""
    _listeners.append(listener)
    for name, cls in METHODS:
        listener(name, cls)


def load_entry_points(group: str = 'fgplugins.methods') -> None:
    """Import the modules that installed packages declare in the entry-point group, once each.

    One that fails is named in a warning and left out; the others are not its victims.
    """
    for point in entry_points(group=group):
        if point.value not in _searched:
            _searched.add(point.value)
            try:
                point.load()
            except Exception as error:
                warnings.warn(
                    f'fgplugins: the entry point {point.name!r} ({point.value}) failed and is left '
                    f'out: {type(error).__name__}: {error}',
                    stacklevel=2,
                )


def list_methods() -> list[str]:
    """The keys of all registered methods, in alphabetical order."""
    return sorted(name for name, _ in METHODS)


def get_method(name: str) -> type[Method]:
    """The class registered under ``name``.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in METHODS:
        raise ValueError(
            f'method {name!r} is not registered; there are: {", ".join(list_methods())}'
        )
    return METHODS.get(name)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of vectors (N, C) that also trains on a batch of one.

    One vector has no variance; it is normalised by the running statistics instead.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """``x`` unchanged in the forward pass, its gradient times ``scale`` in the backward pass."""
    if scale == 1:
        return x
    if scale == 0:
        return x.detach()
    return x.detach() + scale * (x - x.detach())


def _raised(value: object) -> object:
    """A tensor, or those of a sequence, in float32 if in float16; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [_raised(v) for v in value]
    return value.float() if isinstance(value, Tensor) and value.dtype is torch.float16 else value


def without_float16(function: Callable) -> Callable:
    """Decorator: what the function would compute in float16, it computes in float32.

    For products of features and their sums over channels: the largest number of float16 is 65504.
    bfloat16, which holds them, stays. The parameters of a module in float16 are raised for the
    call, if the function is a module's.

    Args:
        function: of tensors and sequences of them, some of which are features.
    """

    @functools.wraps(function)
    def in_float32(*arguments: object) -> object:
        flat = [x for a in arguments for x in (a if isinstance(a, (list, tuple)) else [a])]
        tensors = [x for x in flat if isinstance(x, Tensor)]
        device = tensors[0].device.type
        given = any(x.dtype is torch.float16 for x in tensors)
        has_autocast = torch.amp.is_autocast_available(device)  # meta has none
        chosen = (
            has_autocast
            and torch.is_autocast_enabled(device)
            and torch.get_autocast_dtype(device) is torch.float16
        )
        if not given and not chosen:
            return function(*arguments)
        module = arguments[0]
        with torch.autocast(device, enabled=False) if has_autocast else nullcontext():
            if not isinstance(module, nn.Module):
                return function(*_raised(arguments))
            half = [k for k, p in module.named_parameters() if p.dtype is torch.float16]
            if not half:
                return function(module, *_raised(arguments[1:]))
            weights = {k: module.get_parameter(k).float() for k in half}
            # functional_call is made of this, and calls nothing but forward
            with _reparametrize_module(module, weights):
                return function(module, *_raised(arguments[1:]))

    return in_float32


def check_gradient_path(features: Sequence[Tensor]) -> None:
    """Refuse maps that scores cannot be differentiated by, twice, as a gradient-based loss does.

    A network that returns a normalised or permuted copy of what it continues from fails here: its
    scores have no gradient with respect to the copy.

    Raises:
        ValueError: saying what fails.
    """
    *inner, last = features
    if not all(f.requires_grad for f in features):
        raise ValueError(
            'it is computed without gradients, since all below it is frozen: freeze fewer stages'
        )
    try:
        gradients = torch.autograd.grad(last.sum(), inner, create_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise ValueError(f'its gradient cannot be computed: {first_line(error)}') from None
    if any(g is None for g in gradients):
        raise ValueError(
            'what it hands over is not the tensor it continues from, but a normalised, permuted or '
            'detached copy, or the end of another branch: take a backbone that hands over the map '
            'itself, as ResNet, RegNet, EfficientNet, MobileNetV2, VGG or ConvNeXt of timm'
        )
    again = sum(g.square().sum() for g in gradients)
    if again.requires_grad:
        try:
            torch.autograd.grad(again, inner, allow_unused=True)
        except RuntimeError as error:
            raise ValueError(f'it cannot be differentiated twice: {first_line(error)}') from None


def first_line(error: Exception) -> str:
    """The first sentence of an error's message."""
    return (str(error).strip() or type(error).__name__).split('\n')[0].split('. ')[0]


def negative_log_likelihood(scores: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of log-scores (N, Y): mean over N of ``-sum_y target_y scores_y``.

    Args:
        scores: (N, Y) logarithms; they need not be normalised.
        target: (N,) class indices or (N, Y) class probabilities (Mixup, label smoothing).

    Raises:
        ValueError: for targets of another shape.
    """
    if target.ndim == 1:
        return nn.functional.nll_loss(scores, target)
    if target.shape != scores.shape:
        N, Y = scores.shape
        raise ValueError(
            f'targets of shape {tuple(target.shape)}: must be class indices ({N},) or '
            f'probabilities ({N}, {Y})'
        )
    return -(target * scores).sum(dim=1).mean()
