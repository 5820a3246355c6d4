"""A timm backbone with a method on top, as one timm model."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import torch
from timm.models._features import feature_take_indices
from timm.models._hub import _get_global_pool
from timm.models._input import update_model_input_size
from torch import Tensor, nn

from fgplugins.methods import get_method
from fgplugins.methods.base import Given
from fgplugins.networks import gates
from fgplugins.networks.adapter import adapt_built, adapt_network
from fgplugins.networks.reading import Reading
from fgplugins.utils.probing import (
    check_gradient_path,
    find_view_size,
    make_twice_differentiable,
    probe,
    sizes_to_try,
)
from fgplugins.zoo_timm.arguments import check_backbone, explain_argument, method_arguments
from fgplugins.zoo_timm.grouping import LAST, network_ordinals
from fgplugins.zoo_timm.scripting import ScriptedNetwork, TracedModel, trace_method

__all__ = ['ComposedModel']


class ComposedModel(nn.Module):
    """``backbone -> feature maps, embedding -> method -> scores``, with timm's model interface.

    A method that uses the network's own prediction stands on the network as it is, with its own
    head and classifier. ``gap``, ``siou`` and ``art`` are that network: like any model of timm's,
    their ``forward_features`` gives the network's final features, and ``forward_head`` scores of
    them. For other methods the features are a list: the maps and, last, the embedding if it is
    read.

    Args:
        method: key of a registered method.
        backbone: name of any timm model.
        num_classes: Y; 0 leaves the method out (`forward` then returns the embedding).
        in_chans: image channels.
        head: 'network' (the backbone's own head and classifier) | 'mean' (no more than the mean of
            its last map); if None its own where it has one that gives all scores from one vector,
            else 'mean', and a warning says so.
        taps: how many of the backbone's last maps the method reads; the method's default if None.
        levels: the maps themselves, as indices into the backbone's ``feature_info``.
        backbone_pretrained: load the backbone's published weights; its classifier too, if it is of
            as many classes.
        backbone_checkpoint: load the weights of this file, likewise.
        drop_rate: of dropout in front of the network's classifier; the network's own if None. For
            methods that do not use the network's prediction, of dropping channels of the last map.
        global_pool: of the backbone, as timm has it; '' counts where there are no classes. Where
            the backbone's own head is not read, 'avg' or ''.
        device: where to create the parameters.
        dtype: their type.
        probe: run the backbone once on a small image to see whether it suits the method, and which
            of its parameters the maps depend on. What is known to fit (presets of ``head='mean'``)
            needs none.
        **kwargs: hyper-parameters of the method by its own names; the rest goes to the backbone.

    Raises:
        ValueError: for an unknown method or backbone, levels that the backbone lacks, or a head
            that it does not have.
    """

    _version = 2  # of state dicts: in 1, `head` was what is now 'mean'

    def __init__(
        self,
        method: str,
        backbone: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        head: str | None = None,
        taps: int | None = None,
        levels: Sequence[int] | None = None,
        backbone_pretrained: bool = False,
        backbone_checkpoint: str | Path = '',
        drop_rate: float | None = None,
        global_pool: str | None = None,
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
        self.method_name, self.method_class, self.method_args = method, cls, own
        self.in_chans = in_chans
        self.backbone_name, self.backbone_args = backbone, dict(kwargs)
        if cls.reads_embedding and head != 'mean' and global_pool:
            kwargs['global_pool'] = self.backbone_args['global_pool'] = global_pool
        try:
            adapted = adapt_network(
                backbone, method, num_classes, in_chans, head, taps, levels, cls.default_taps,
                cls.reads_embedding, backbone_pretrained, backbone_checkpoint, probe,
                device=device, dtype=dtype, **kwargs,
            )  # fmt: skip
        except TypeError as error:
            raise TypeError(explain_argument(str(error), cls, method, backbone)) from error
        self.backbone, self.reading = adapted.network, adapted.reading
        self.head, self.place, self.levels = adapted.head, adapted.place, adapted.reading.levels
        self.embedding_channels = adapted.embedding_channels
        self.channels, self.reductions = adapted.channels, adapted.reductions
        self.feature_info = list(self.backbone.feature_info)[: self.levels[-1] + 1]
        self.input_size, self.fixed_size = adapted.input_size, adapted.fixed_size
        self._set_pooling(global_pool)
        self.num_classes = num_classes
        self.drop_rate = adapted.drop_rate if drop_rate is None else drop_rate
        self.feature_drop = nn.Dropout2d(0.0 if cls.embedding_classifier else self.drop_rate)
        self.head_hidden_size = self.embedding_channels or self.channels[-1]
        # of what forward_features gives
        self.num_features = (
            self.backbone.num_features if self.has_own_head else self.head_hidden_size
        )
        self.method = self._build_method(adapted.classifier, device, dtype)
        # attention that has no second derivative where it is fused
        self._fused = make_twice_differentiable(self.backbone) if cls.needs_gradient_path else []
        self.train()
        if probe and cls.needs_gradient_path:
            self._check_gradients()

    @property
    def is_network(self) -> bool:
        """Whether it is the network that it stands on: its scores come from one map."""
        return self.method_class.is_network

    @property
    def has_own_head(self) -> bool:
        """Whether it is that network with its own head, and not the mean of its last map."""
        return self.is_network and self.place is not None

    @property
    def _model_args(self) -> dict[str, Any]:
        """What timm saves to build the model again.

        Without where the first weights came from, and always with the head.
        """
        return self._arguments

    @_model_args.setter
    def _model_args(self, arguments: dict[str, Any]) -> None:
        sources = ('backbone_checkpoint', 'backbone_pretrained')
        kept = {k: v for k, v in arguments.items() if k not in sources}
        self._arguments = {**kept, 'head': self.head}

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict, *rest: Any
    ) -> None:
        """Any module's, for weights of another version.

        Raises:
            ValueError: for those of a model with another head.
        """
        other = self.reading.embedding or self.reading.final is not None
        given = {name for name in state_dict if name.startswith(prefix)}
        other |= self.place is not None and given != {prefix + name for name in self.state_dict()}
        if other and local_metadata.get('version', 2) < 2:
            raise ValueError(
                f'weights of fgplugins 0.1, which averaged the last map of {self.backbone_name}: '
                "build the model with head='mean' for them"
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    @torch.inference_mode(False)
    def _check_gradients(self) -> None:
        """Refuse a backbone that scores cannot be differentiated by, as the method does it.

        Raises:
            ValueError: naming it.
        """
        sizes = sizes_to_try(self.input_size, self.fixed_size is not None, self.reductions[-1])
        try:
            given = probe(self.read, self.backbone, self.in_chans, sizes, gradients=True)
            maps, z = given if self.reading.embedding else (given, None)
            with torch.enable_grad():
                check_gradient_path(maps if z is None else [*maps, z])
        except ValueError as error:
            name, method = self.backbone_name, self.method_name
            raise ValueError(
                f'{method} on {name}: {method} differentiates scores with respect to the '
                f'inner feature map of {name}, and {error}'
            ) from None

    def find_view_size(self) -> tuple[int, int] | None:
        """The size that a part of an image is resized to, before the backbone looks at it.

        None if the backbone takes images half as large as its own. Else it is the nearest whole
        number of its steps, or the one size that it is built for.
        """
        if self.fixed_size:
            return self.fixed_size
        stride = self.reductions[-1]
        half = tuple((side + 1) // 2 for side in self.input_size)
        whole_steps = tuple(max(side // stride, 1) * stride for side in half)
        sizes = [half, whole_steps, self.input_size]
        return find_view_size(self.read, self.backbone, self.in_chans, sizes)

    def _set_pooling(self, global_pool: str | None) -> None:
        if self.place is None and global_pool not in (None, 'avg', ''):
            raise ValueError(
                f'global_pool={global_pool!r}: no layer of the backbone pools what '
                f'{self.method_name} reads here; leave it out'
            )
        if global_pool is None:
            global_pool = 'avg' if self.place is None else _get_global_pool(self.backbone)
        self.global_pool = global_pool  # None if the network does not say it

    def _build_method(
        self,
        classifier: nn.Module | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> nn.Module:
        """The method for the backbone's maps, with the network's own classifier if it has one."""
        if self.num_classes == 0:
            return nn.Identity()
        cls, D = self.method_class, self.embedding_channels
        embedding = {} if D is None else {'embedding_channels': D}
        method = cls(self.channels, self.num_classes, **self.method_args, **embedding)
        if cls.embedding_classifier:
            method.head_drop = nn.Dropout(self.drop_rate)
        if classifier is not None and cls.embedding_classifier:
            method.set_submodule(cls.embedding_classifier, classifier)
        shapes = [
            (1, C, *(math.ceil(side / stride) for side in self.input_size))
            for C, stride in zip(self.channels, self.reductions, strict=True)
        ]
        # methods are not written in TorchScript's subset of Python: it gets them traced
        method.__prepare_scriptable__ = functools.partial(trace_method, method, shapes)
        return method.to(device=device, dtype=dtype)

    def __prepare_scriptable__(self) -> nn.Module:
        """For ``torch.jit.script``: the network scripted, or the model traced, as in testing."""
        weight = next(self.parameters())
        example = weight.new_zeros(1, self.in_chans, *self.input_size)
        if self.has_own_head and self.num_classes:
            classifier = self.method.get_submodule(self.method.embedding_classifier)
            parts = self.backbone, self.method.head_drop, classifier
            # whatever a network has that scripting does not take
            with contextlib.suppress(Exception):
                return ScriptedNetwork(parts, self, example)
        return TracedModel(self, example)

    def train(self, mode: bool = True) -> ComposedModel:
        """Any module's ``train``; attention to be differentiated twice is fused in testing only."""
        super().train(mode)
        for module in self._fused:
            module.fused_attn = not mode
        return self

    def read(self, x: Tensor) -> Given:
        """The maps (N, C_s, H_s, W_s) the method reads, shallow to deep; with the embedding (N, D),
        as a pair, where the network's own is more than the mean of the last map.
        """
        given = self.reading(self.backbone, x)
        if self.reading.embedding or not self.feature_drop.p:
            return given
        return [*given[:-1], self.feature_drop(given[-1])]

    def forward_features(self, x: Tensor) -> Tensor | list[Tensor]:
        """The network's final features; for methods that are more, the maps and the embedding."""
        if self.has_own_head:
            return self.backbone.forward_features(x)
        return self._as_features(self.read(x))

    def _as_features(self, given: Given) -> Tensor | list[Tensor]:
        if self.is_network:
            return given[-1]
        return [*given[0], given[1]] if self.reading.embedding else list(given)

    def forward_head(self, features: Tensor | list[Tensor], pre_logits: bool = False) -> Tensor:
        """Scores (N, Y) of features; the embedding (N, D) with ``pre_logits``, or without classes.

        A model without classes and with ``global_pool=''`` gives the last map.
        """
        unpooled = self.num_classes == 0 and self.global_pool == ''
        if self.is_network:
            if unpooled and not pre_logits:
                return features
            own = self.has_own_head
            z = self.backbone.forward_head(features) if own else features.mean(dim=(2, 3))
            return self.method.network_scores(z) if self.num_classes and not pre_logits else z
        maps, embedding = features, {}
        if self.reading.embedding:
            maps, embedding = features[:-1], {'embedding': features[-1]}
        if self.num_classes and not pre_logits:
            return self.method(maps, **embedding)
        if unpooled and not pre_logits:
            return maps[-1]
        return embedding.get('embedding', maps[-1].mean(dim=(2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, Y) of images (N, in_chans, H, W)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
        **kwargs: Any,
    ) -> list[Tensor] | tuple[Tensor | list[Tensor], list[Tensor]]:
        """The backbone's maps of ``indices``, with what `forward_features` gives before them.

        Args:
            x: images (N, in_chans, H, W).
            indices: numbers of maps, or how many of the last ones; all if None.
            norm: behind the network's last normalisation.
            stop_early: stop at the last of them, where they are all that is wanted.
            output_fmt: timm's name of the maps' shape.
            intermediates_only: give the maps alone.
            **kwargs: what else the backbone's own takes.
        """
        wanted, _ = feature_take_indices(len(self.feature_info), indices)
        options = {'norm': norm, 'output_fmt': output_fmt, **kwargs}
        if intermediates_only or self.has_own_head:
            return self.backbone.forward_intermediates(
                x, indices=wanted, stop_early=stop_early, intermediates_only=intermediates_only,
                **options,
            )  # fmt: skip
        if options != {'norm': self.reading.normalized, 'output_fmt': 'NCHW'}:  # other maps
            maps = self.backbone.forward_intermediates(
                x, indices=wanted, stop_early=True, intermediates_only=True, **options
            )
            return self.forward_features(x), maps
        both = sorted({*wanted, *self.levels})
        final, maps = self.backbone.forward_intermediates(x, indices=both, **options)
        by_level = dict(zip(both, maps, strict=True))
        given = self.reading.of(self.backbone, final, [by_level[i] for i in self.levels])
        return self._as_features(given), [by_level[i] for i in wanted]

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the chosen maps do not need: the method too, unless ``prune_head=False``.

        Args:
            indices: numbers of maps, or how many of the last ones.
            prune_norm: also drop the network's last normalisation.
            prune_head: drop the head.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        whole = last == len(self.backbone.feature_info) - 1
        kept = self.backbone.prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head or not whole:
            self.num_classes, self.method = 0, nn.Identity()
            self.levels, self.reading = list(taken), Reading(list(taken), not prune_norm)
            self.feature_info = self.feature_info[: last + 1]
            info = [self.feature_info[i] for i in taken]
            self.channels = [level['num_chs'] for level in info]
            self.reductions = [level['reduction'] for level in info]
            self.embedding_channels = None
            self.num_features = self.head_hidden_size = self.channels[-1]
        return kept

    def loss(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The method's named loss terms of a batch.

        Raises:
            RuntimeError: if the method has terms that need what exists in training only.
        """
        self.check_method()
        if self.method.has_regularizer:
            raise RuntimeError(
                f'{self.method_name} trains beside a second network, which the model does not '
                'hold: train through fgplugins.zoo_timm.task.LossStep or MethodTask'
            )
        features, given = self.method.split(self.method.features_for_loss(self.read, x))
        return self.method.loss(features, target, **given)

    def show(self, x: Tensor, **asked: Any) -> tuple[Tensor, list[Tensor]]:
        """Scores (N, Y) of images, and the masks of `attention_maps`.

        Args:
            x: images (N, in_chans, H, W).
            **asked: of the method's own `questions`.

        Raises:
            ValueError: if there is no method, for want of classes.
        """
        self.check_method()
        return gates.show(self.method, self.backbone, self.read, x, **asked)

    def attention_maps(self, x: Tensor, **asked: Any) -> list[Tensor]:
        """What the method looks at: one (N, K, H_s, W_s) stack of masks per level.

        A network that has gates of its own, as PAN's, gives them first, (N, 1, H, W) each.

        Args:
            x: images (N, in_chans, H, W).
            **asked: of the method's own `questions`.

        Raises:
            ValueError: if there is no method, for want of classes.
        """
        return self.show(x, **asked)[1]

    def check_method(self) -> None:
        """Refuse what needs the method, where there is none for want of classes.

        Raises:
            ValueError: if the model has no classes.
        """
        if not self.num_classes:
            raise ValueError(
                f'a model of num_classes=0 has no {self.method_name}, nor attention or loss: '
                'reset_classifier(...) gives it classes'
            )

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The layers that depend on the number of classes: the whole method."""
        return self.method

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Build the method and the classifier anew for another number of classes; 0 removes them.

        Args:
            num_classes: Y.
            global_pool: of the backbone, as for a new model; as it is if None. '' gives the last
                map where there are no classes.
        """
        classifier = None
        if global_pool is not None:
            self._set_pooling(global_pool)
        self.num_classes = num_classes
        weight = next(self.backbone.parameters())
        if self.place is not None and num_classes:
            self.backbone.reset_classifier(num_classes, global_pool or None)
            if global_pool:
                classifier = self._adapt_again(num_classes, global_pool)
            else:
                classifier = self.place.take(self.backbone)
        method = self._build_method(classifier, weight.device, weight.dtype)
        self.method = method.train(self.training)

    @torch.inference_mode(False)
    def _adapt_again(self, num_classes: int, global_pool: str) -> nn.Module | None:
        """Find out how the backbone is read, now that it pools in another way; its classifier."""
        self.backbone_args['global_pool'] = global_pool
        arguments = {'num_classes': num_classes, 'in_chans': self.in_chans, **self.backbone_args}
        name = self.backbone_name
        adapted, reason = adapt_built(self.backbone, name, self.levels, arguments)
        if adapted is None:
            raise ValueError(f'global_pool={global_pool!r}: {name} {reason}')
        self.reading, self.place, self.channels = adapted.reading, adapted.place, adapted.channels
        self.embedding_channels = adapted.embedding_channels
        self.head_hidden_size = self.embedding_channels or self.channels[-1]
        return adapted.classifier

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
            if size is not None:  # the size of its parameters
                self.backbone_args['img_size'] = tuple(size)
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
