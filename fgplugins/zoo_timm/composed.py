"""A timm backbone with a method on top, as one timm model."""

from __future__ import annotations

import functools
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, get_type_hints

import timm
import torch
from timm.models import get_model_input_config
from timm.models._input import update_model_input_size
from timm.models._pretrained import PretrainedCfg
from torch import Tensor, nn

from fgplugins.errors import did_you_mean
from fgplugins.methods import Method, get_method
from fgplugins.utils.modes import in_testing
from fgplugins.utils.probing import (
    check_gradient_path,
    differentiate_twice,
    turn_into_buffers,
    unused_parameters,
)
from fgplugins.zoo_timm.names import look_up
from fgplugins.zoo_timm.weights import create_backbone

LAST = (math.inf,)  # where timm groups what no pattern matches, a classifier first of all

__all__ = [
    'ComposedModel',
    'check_backbone',
    'check_numbers',
    'choose_levels',
    'classifier_layers',
    'layer_ordinals',
    'method_arguments',
    'read_maps',
]


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
    return list(inspect.signature(cls.__init__).parameters)[3:]


def check_backbone(name: str, cache_dir: str | Path | None = None) -> PretrainedCfg | None:
    """The settings of a backbone's weights, if there are any.

    Raises:
        ValueError: if timm does not know the name, or it has a method on top already.
    """
    try:
        architecture, cfg = look_up(name, cache_dir)
    except ValueError as error:
        raise ValueError(f'backbone={error}') from None
    plain = getattr(timm.model_entrypoint(architecture), 'backbone', None)
    if plain:
        raise ValueError(
            f'backbone={name!r} has a method on top already: give {plain!r}, or another plain '
            'network'
        )
    return cfg


def _explain_argument(message: str, cls: type[Method], method: str, backbone: str) -> str:
    """What to say of an argument that neither the method nor the backbone takes."""
    found = re.search(r"unexpected keyword argument '(\w+)'", message)
    if not found:
        return message
    known = method_arguments(cls)
    hint = did_you_mean(found[1], [*known, 'num_classes', 'in_chans', 'taps'])
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


def layer_ordinals(matcher: Any) -> Callable[[str], tuple[float, ...]]:
    """A group matcher of any kind that timm takes, as a function of a parameter's name."""
    if callable(matcher):

        def find(name: str) -> tuple[float, ...]:
            found = matcher(name)
            return tuple(found) if isinstance(found, Iterable) else (found,)

        return find
    if isinstance(matcher, dict):
        groups = [s if isinstance(s, list | tuple) else [(s, None)] for s in matcher.values()]
        matcher = [(p, (i,), suffix) for i, group in enumerate(groups) for p, suffix in group if p]
    patterns = [(re.compile(pattern), *rest) for pattern, *rest in matcher]

    def find_pattern(name: str) -> tuple[float, ...]:
        for pattern, prefix, suffix in patterns:
            match = pattern.match(name)
            if match:
                parts = (*(prefix or ()), *match.groups(), *(suffix or ()))
                return tuple(float(part) for part in parts if part is not None)
        return LAST

    return find_pattern


def read_maps(backbone: nn.Module, levels: Sequence[int], x: Tensor) -> list[Tensor]:
    """A timm backbone's maps (N, C_s, H_s, W_s) of the chosen levels, shallow to deep.

    Behind the network's last normalisation, unless it refuses, as a probe finds out.
    """
    return backbone.forward_intermediates(
        x,
        indices=list(levels),
        norm=backbone.normalized_maps,
        output_fmt='NCHW',
        intermediates_only=True,
    )


def try_backbone(
    backbone: nn.Module,
    levels: Sequence[int],
    in_chans: int,
    sizes: Sequence[tuple[int, int]],
    gradients: bool = False,
) -> list[Tensor] | None:
    """A backbone's maps (1, C_s, H_s, W_s) of one empty image, of the first size that it takes.

    Args:
        backbone: a timm model; it runs as in testing, so that its statistics stay as they are.
        levels: of the maps.
        in_chans: image channels.
        sizes: (height, width) of images to try in turn.
        gradients: compute the maps with gradients on, the image's too.

    Returns:
        The maps, or None if it takes none of the sizes.
    """
    weight = next(backbone.parameters())
    with in_testing(backbone), torch.set_grad_enabled(gradients):
        for size in sizes:
            x = torch.zeros(1, in_chans, *size, device=weight.device, dtype=weight.dtype)
            try:
                return read_maps(backbone, levels, x.requires_grad_(gradients))
            except Exception:  # whatever it is, its own size raises it again in use
                continue
    return None


class _Traced(nn.Module):
    """A module as it runs in testing, in the form that ``torch.jit.script`` takes.

    Args:
        module: the module.
        example: what it is run on once.
    """

    def __init__(self, module: nn.Module, example: Tensor | list[Tensor]) -> None:
        super().__init__()
        with torch.no_grad(), in_testing(module), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of sizes that are read in Python
            self.traced = torch.jit.trace(module, (example,), check_trace=False)


class _TracedModel(_Traced):
    def forward(self, x: Tensor) -> Tensor:
        return self.traced(x)


class _TracedMethod(_Traced):
    def forward(self, features: list[Tensor]) -> Tensor:
        return self.traced(features)


def _trace_method(method: Method, shapes: Sequence[tuple[int, ...]]) -> _TracedMethod:
    weight = next(method.parameters())
    return _TracedMethod(method, [weight.new_zeros(shape) for shape in shapes])


class ComposedModel(nn.Module):
    """``backbone -> feature maps -> method -> scores``, with timm's model interface.

    Args:
        method: key of a registered method.
        backbone: name of any timm model.
        num_classes: Y; 0 leaves the method out (`forward` then returns the last map, pooled).
        in_chans: image channels.
        taps: how many of the backbone's last maps the method reads; the method's default if None.
        levels: the maps themselves, as indices into the backbone's ``feature_info``.
        backbone_pretrained: load the backbone's published weights.
        backbone_checkpoint: load the backbone's weights from this file.
        drop_rate: of dropping channels of the last map in training: timm's dropout of the vector
            that is classified, for methods that average the map.
        global_pool: 'avg' | ''; how the last map comes out where there is no method on it. Methods
            pool under their own masks.
        device: where to create the parameters.
        dtype: their type.
        probe: run the backbone once on a small image to see whether it suits the method, and which
            of its parameters the maps depend on. What is known to fit (presets) needs none.
        **kwargs: hyper-parameters of the method by its own names; the rest goes to the backbone.

    Raises:
        ValueError: for an unknown method or backbone, or levels that the backbone lacks.
    """

    def __init__(
        self,
        method: str,
        backbone: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        taps: int | None = None,
        levels: Sequence[int] | None = None,
        backbone_pretrained: bool = False,
        backbone_checkpoint: str | Path = '',
        drop_rate: float = 0.0,
        global_pool: str = 'avg',
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        probe: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self._arguments: dict[str, Any] = {}
        cls = get_method(method)
        check_backbone(backbone)
        own = {k: kwargs.pop(k) for k in method_arguments(cls) if k in kwargs}
        self.method_name, self.method_args, self.in_chans = method, own, in_chans
        self._set_pooling(global_pool)
        self.feature_drop = nn.Dropout2d(drop_rate)
        self.backbone_name, self.backbone_args = backbone, dict(kwargs)
        arguments = {'num_classes': 0, 'in_chans': in_chans, **kwargs}
        try:
            self.backbone = create_backbone(
                backbone, backbone_pretrained, backbone_checkpoint,
                device=device, dtype=dtype, **arguments,
            )  # fmt: skip
        except TypeError as error:
            raise TypeError(_explain_argument(str(error), cls, method, backbone)) from error
        info = list(self.backbone.feature_info)
        if levels is None:
            taps = cls.default_taps if taps is None else taps
            levels = choose_levels(info, taps, f'{method} on {backbone}')
        elif taps is not None:
            raise ValueError(f'taps={taps}, levels={list(levels)}: give one of them')
        elif not all(-len(info) <= i < len(info) for i in levels):
            raise ValueError(
                f'levels={list(levels)}: {backbone} has {len(info)} maps, 0 to {len(info) - 1}'
            )
        levels = sorted(i % len(info) for i in levels)
        self.feature_info = [info[i] for i in levels]
        # nothing above the last map read stays, so that every parameter gets a gradient
        self.levels = list(self.backbone.prune_intermediate_layers(levels, prune_head=True))
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.num_features = self.head_hidden_size = self.feature_info[-1]['num_chs']
        settings = get_model_input_config(self.backbone)
        self.input_size = tuple(settings['input_size'][1:])
        self.fixed_size = self.input_size if settings['fixed_input_size'] else None
        self.method = self._build_method(device, dtype)
        # attention that has no second derivative where it is fused
        self._fused = differentiate_twice(self.backbone) if cls.needs_gradient_path else []
        self.backbone.normalized_maps = True
        self.train()
        if probe:
            self._probe(cls.needs_gradient_path)

    @property
    def _model_args(self) -> dict[str, Any]:
        """What timm saves to build the model again: without where the first weights came from."""
        return self._arguments

    @_model_args.setter
    def _model_args(self, arguments: dict[str, Any]) -> None:
        sources = ('backbone_checkpoint', 'backbone_pretrained')
        self._arguments = {k: v for k, v in arguments.items() if k not in sources}

    def _probe(self, needs_gradient_path: bool) -> None:
        """Find out by one small image what the backbone can do, and adapt it.

        Parameters that the maps do not depend on stop being parameters: what timm leaves when it
        prunes, as the normalisation of a class token, or branches that end beside the maps.

        Raises:
            ValueError: if the method needs gradients that the backbone cannot have.
        """
        sizes = [self.input_size]
        if not self.fixed_size:
            side = 2 * self.feature_info[-1]['reduction']
            sizes.insert(0, (side, side))
        for normalized in (True, False):  # some of timm's networks refuse to
            self.backbone.normalized_maps = normalized
            maps = try_backbone(self.backbone, self.levels, self.in_chans, sizes, gradients=True)
            if maps is not None:
                break
        else:
            self.backbone.normalized_maps = True
        if needs_gradient_path:
            try:
                if maps is None:
                    raise ValueError(f'it does not run on an image of {self.input_size}')
                with torch.enable_grad():
                    check_gradient_path(maps)
            except ValueError as error:
                name, method = self.backbone_name, self.method_name
                raise ValueError(
                    f'{method} on {name}: {method} differentiates scores with respect to the '
                    f'inner feature map of {name}, and {error}'
                ) from None
        if maps is not None:
            turn_into_buffers(self.backbone, unused_parameters(self.backbone, maps))

    def find_view_size(self) -> tuple[int, int] | None:
        """The size of images to look at a part of an image in.

        None if the backbone takes images half as large as its own, or else what it takes: the
        nearest whole number of its steps, or the one size it is built for.
        """
        if self.fixed_size:
            return self.fixed_size
        stride = self.feature_info[-1]['reduction']
        half = tuple((side + 1) // 2 for side in self.input_size)
        whole_steps = tuple(max(side // stride, 1) * stride for side in half)
        for size in (half, whole_steps, self.input_size):
            if try_backbone(self.backbone, self.levels, self.in_chans, [size]) is not None:
                return None if size == half else size
        return None

    def _set_pooling(self, global_pool: str | None) -> None:
        if global_pool not in ('avg', ''):
            raise ValueError(
                f'global_pool={global_pool!r}: {self.method_name} pools under its own masks; '
                'leave it out'
            )
        self.global_pool = global_pool

    def _build_method(
        self, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> nn.Module:
        if self.num_classes == 0:
            return nn.Identity()
        channels = [info['num_chs'] for info in self.feature_info]
        method = get_method(self.method_name)(channels, self.num_classes, **self.method_args)
        strides = [info['reduction'] for info in self.feature_info]
        shapes = [
            (1, C, *(math.ceil(side / stride) for side in self.input_size))
            for C, stride in zip(channels, strides, strict=True)
        ]
        # methods are not written in TorchScript's subset of Python: it gets them traced
        method.__prepare_scriptable__ = functools.partial(_trace_method, method, shapes)
        return method.to(device=device, dtype=dtype)

    def __prepare_scriptable__(self) -> nn.Module:
        """For ``torch.jit.script``: the model traced as it runs in testing."""
        weight = next(self.parameters())
        return _TracedModel(self, weight.new_zeros(1, self.in_chans, *self.input_size))

    def train(self, mode: bool = True) -> ComposedModel:
        """As of any module; what differentiates gradients fuses attention in testing only."""
        super().train(mode)
        for module in self._fused:
            module.fused_attn = not mode
        return self

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The maps (N, C_s, H_s, W_s) the method reads, shallow to deep."""
        maps = read_maps(self.backbone, self.levels, x)
        return [*maps[:-1], self.feature_drop(maps[-1])] if self.drop_rate else maps

    def forward_head(self, features: Sequence[Tensor], pre_logits: bool = False) -> Tensor:
        """Scores (N, Y) of the maps; the pooled last map (N, C) with ``pre_logits``.

        The last map is also what comes out of a model without classes, pooled unless
        ``global_pool=''``.
        """
        if self.num_classes and not pre_logits:
            return self.method(features)
        return features[-1].mean(dim=(2, 3)) if self.global_pool else features[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, Y) of images (N, in_chans, H, W)."""
        return self.forward_head(self.forward_features(x))

    def loss(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The method's named loss terms of a batch.

        Raises:
            RuntimeError: if the method has terms that need what exists in training only.
        """
        if self.method.has_regularizer:
            raise RuntimeError(
                f'{self.method_name} trains beside a second network, which the model does not '
                'hold: train through fgplugins.zoo_timm.task.LossStep or MethodTask'
            )
        with self.method.recording():
            features = self.forward_features(x)
        return self.method.loss(features, target)

    def attention_maps(self, x: Tensor, **asked: Any) -> list[Tensor]:
        """What the method looks at: one (N, K, H_s, W_s) stack of masks per level.

        Args:
            x: images (N, in_chans, H, W).
            **asked: what the method's own ``attention`` takes besides.

        Raises:
            ValueError: if there is no method, for want of classes.
        """
        if not self.num_classes:
            raise ValueError(f'a model of num_classes=0 has no {self.method_name}, nor attention')
        with self.method.looking_at(x) as x:
            return self.method.attention(self.forward_features(x), **asked)

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The layers that depend on the number of classes: the whole method."""
        return self.method

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Build the method anew for another number of classes; 0 removes it.

        Args:
            num_classes: Y.
            global_pool: 'avg' | ''; as it is if None.
        """
        if global_pool is not None:
            self._set_pooling(global_pool)
        self.num_classes = num_classes
        weight = next(self.backbone.parameters())
        self.method = self._build_method(weight.device, weight.dtype).train(self.training)

    @torch.jit.ignore
    def set_input_size(self, img_size: int | Sequence[int] | None = None, **kwargs: Any) -> None:
        """Adapt the backbone to another size of images, where it is built for one.

        Args:
            img_size: (height, width), or one side; as it is if None.
            **kwargs: what else the backbone's own ``set_input_size`` takes.

        Raises:
            ValueError: if the backbone is built for one size and cannot change it, or takes none
                of the rest.
        """
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        if hasattr(self.backbone, 'set_input_size'):
            self.backbone.set_input_size(img_size=size, **kwargs)
        elif kwargs or (self.fixed_size and size is not None and tuple(size) != self.fixed_size):
            names = ', '.join(kwargs) or 'img_size'
            raise ValueError(f'set_input_size: {self.backbone_name} cannot change its {names}')
        if size is not None:
            self.input_size = tuple(size)
            self.fixed_size = self.input_size if self.fixed_size else None
            update_model_input_size(self, self.input_size)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's activations in the backward pass instead of storing them."""
        self.backbone.set_grad_checkpointing(enable)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[float, ...]]:
        """The backbone's groups by depth (for layer decay), the method last.

        A backbone that timm has no groups for has one for each of its parts, in their order, and
        of the stages in a part.
        """
        if hasattr(self.backbone, 'group_matcher'):
            groups = self.backbone.group_matcher(coarse=coarse)
        else:
            parts = [name for name, _ in self.backbone.named_children()]
            groups = {p: [(rf'{p}\.(\d+)\.', None), (rf'{p}\.', None)] for p in parts}
        find = layer_ordinals(groups)

        def matcher(name: str) -> tuple[float, ...]:
            part, _, rest = name.partition('.')
            return find(rest) if part == 'backbone' else LAST

        return matcher

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """The backbone's parameters that timm does not decay."""
        names = getattr(self.backbone, 'no_weight_decay', set)
        return {f'backbone.{name}' for name in (names() if callable(names) else names)}


# torch.fx hands these on to TorchScript, which does not know types by their names
ComposedModel.forward.__annotations__ = get_type_hints(ComposedModel.forward)
