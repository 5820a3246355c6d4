"""A timm backbone with a method on top, as one timm model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import torch
from timm.models import get_model_input_config
from timm.models._input import update_model_input_size
from torch import Tensor, nn

from fgplugins.methods import get_method
from fgplugins.utils.probing import (
    check_gradient_path,
    find_view_size,
    make_twice_differentiable,
    probe,
    sizes_to_try,
    turn_into_buffers,
    unused_parameters,
)
from fgplugins.zoo_timm.arguments import check_backbone, explain_argument, method_arguments
from fgplugins.zoo_timm.grouping import LAST, network_ordinals
from fgplugins.zoo_timm.levels import find_levels, read_maps
from fgplugins.zoo_timm.scripting import TracedModel, trace_method
from fgplugins.zoo_timm.weights import create_backbone

__all__ = ['ComposedModel']


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
            raise TypeError(explain_argument(str(error), cls, method, backbone)) from error
        info = list(self.backbone.feature_info)
        levels = find_levels(info, taps, levels, cls.default_taps, method, backbone)
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
        self._fused = make_twice_differentiable(self.backbone) if cls.needs_gradient_path else []
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
        stride = self.feature_info[-1]['reduction']
        sizes = sizes_to_try(self.input_size, self.fixed_size is not None, stride)
        maps = None
        for normalized in (True, False):  # some of timm's networks refuse to
            self.backbone.normalized_maps = normalized
            try:
                maps = probe(self._maps, self.backbone, self.in_chans, sizes, gradients=True)
                break
            except ValueError:
                continue
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
        """The size that a part of an image is resized to, before the backbone looks at it.

        None if the backbone takes images half as large as its own. Else it is the nearest whole
        number of its steps, or the one size that it is built for.
        """
        if self.fixed_size:
            return self.fixed_size
        stride = self.feature_info[-1]['reduction']
        half = tuple((side + 1) // 2 for side in self.input_size)
        whole_steps = tuple(max(side // stride, 1) * stride for side in half)
        sizes = [half, whole_steps, self.input_size]
        return find_view_size(self._maps, self.backbone, self.in_chans, sizes)

    def _maps(self, x: Tensor) -> list[Tensor]:
        return read_maps(self.backbone, self.levels, x)

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
        method.__prepare_scriptable__ = functools.partial(trace_method, method, shapes)
        return method.to(device=device, dtype=dtype)

    def __prepare_scriptable__(self) -> nn.Module:
        """For ``torch.jit.script``: the model traced as it runs in testing."""
        weight = next(self.parameters())
        return TracedModel(self, weight.new_zeros(1, self.in_chans, *self.input_size))

    def train(self, mode: bool = True) -> ComposedModel:
        """Any module's ``train``; attention to be differentiated twice is fused in testing only."""
        super().train(mode)
        for module in self._fused:
            module.fused_attn = not mode
        return self

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The maps (N, C_s, H_s, W_s) the method reads, shallow to deep."""
        maps = self._maps(x)
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
        return self.method.loss(self.method.features_for_loss(self.forward_features, x), target)

    def attention_maps(self, x: Tensor, **asked: Any) -> list[Tensor]:
        """What the method looks at: one (N, K, H_s, W_s) stack of masks per level.

        Args:
            x: images (N, in_chans, H, W).
            **asked: of the method's own `questions`.

        Raises:
            ValueError: if there is no method, for want of classes.
        """
        if not self.num_classes:
            raise ValueError(f'a model of num_classes=0 has no {self.method_name}, nor attention')
        return self.method.show(self.forward_features, x, **asked)[1]

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
        """The backbone's groups by depth (for layer decay), the method last."""
        find = network_ordinals(self.backbone, coarse)

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
