"""A timm backbone with a method on top, as one timm model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from fgplugins.methods import Method, get_method
from fgplugins.methods.base import check_gradient_path

__all__ = [
    'ComposedModel',
    'choose_levels',
    'classifier_layers',
    'load_backbone',
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


def method_arguments(cls: type[Method]) -> list[str]:
    """The names of a method's own hyper-parameters, in order."""
    return list(inspect.signature(cls.__init__).parameters)[3:]


def classifier_layers(cls: type[Method], taps: int | None = None, **kwargs: Any) -> tuple[str, ...]:
    """The layers of a method whose size depends on the number of classes, by name.

    timm leaves them out when it loads weights of another number of classes.
    """
    taps = cls.default_taps if taps is None else taps
    with torch.device('meta'):
        one, other = (cls([8] * taps, Y, **kwargs).state_dict() for Y in (2, 3))
    changed = (name for name in one if one[name].shape != other[name].shape)
    return tuple(dict.fromkeys(name.rpartition('.')[0] for name in changed))


def load_backbone(backbone: nn.Module, path: str) -> None:
    """Load a whole network's weights into a backbone without classifier.

    Raises:
        ValueError: if the file lacks a weight of the backbone, has it in another shape, or holds
            more than a classifier besides.
    """
    weights = load_state_dict(path)
    classifier = backbone.pretrained_cfg.get('classifier') or ()
    prefixes = tuple(
        f'{name}.' for name in ([classifier] if isinstance(classifier, str) else classifier)
    )
    weights = {k: v for k, v in weights.items() if not k.startswith(prefixes)}
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        reason = ' '.join(line.strip() for line in str(error).splitlines())
        raise ValueError(f'backbone_checkpoint={path!r} does not fit: {reason[:300]}') from None


def read_maps(backbone: nn.Module, levels: Sequence[int], x: Tensor) -> list[Tensor]:
    """A timm backbone's maps (N, C_s, H_s, W_s) of the chosen levels, shallow to deep."""
    return backbone.forward_intermediates(
        x, indices=list(levels), norm=True, output_fmt='NCHW', intermediates_only=True
    )


class _Maps(nn.Module):
    """`read_maps` as a module's forward, for calls with other weights."""

    def __init__(self, backbone: nn.Module, levels: Sequence[int]) -> None:
        super().__init__()
        self.backbone, self.levels = backbone, levels

    def forward(self, x: Tensor) -> list[Tensor]:
        return read_maps(self.backbone, self.levels, x)


def check_backbone_gradients(
    backbone: nn.Module, levels: Sequence[int], input_size: tuple[int, int, int]
) -> None:
    """Refuse a backbone whose maps scores cannot be differentiated by.

    Args:
        backbone: a timm model.
        levels: of the maps.
        input_size: (channels, height, width) of an image it takes.

    Raises:
        ValueError: saying why.
    """
    maps, training = _Maps(backbone, levels), backbone.training
    weights = {**dict(maps.named_parameters()), **dict(maps.named_buffers())}
    shapes = {k: torch.empty_like(v, device='meta') for k, v in weights.items()}
    dtype = next(backbone.parameters()).dtype
    backbone.eval()
    try:
        with torch.enable_grad():
            x = torch.empty(1, *input_size, device='meta', dtype=dtype, requires_grad=True)
            try:  # shapes alone cost nothing
                features = torch.func.functional_call(maps, shapes, x)
            except (RuntimeError, NotImplementedError):
                device = next(backbone.parameters()).device
                features = maps(torch.zeros_like(x, device=device, requires_grad=True))
            check_gradient_path(features)
    finally:
        backbone.train(training)


class ComposedModel(nn.Module):
    """``backbone -> feature maps -> method -> scores``, with timm's model interface.

    Args:
        method: key of a registered method.
        backbone: name of any timm model.
        num_classes: Y; 0 leaves the method's scores out (`forward` then returns the feature maps).
        in_chans: image channels.
        taps: how many of the backbone's last maps the method reads; the method's default if None.
        levels: the maps themselves, as indices into the backbone's ``feature_info``.
        backbone_pretrained: load the backbone's published weights.
        backbone_checkpoint: load the backbone's weights from this file.
        global_pool: accepted for timm's sake; methods pool under their own masks.
        device: where to create the parameters.
        dtype: their type.
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
        backbone_checkpoint: str = '',
        global_pool: str = 'avg',
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        cls = get_method(method)
        if not timm.is_model(backbone):
            raise ValueError(
                f'backbone {backbone!r} is not a timm model; timm.list_models() names them all'
            )
        if global_pool not in ('avg', '', None):
            raise ValueError(
                f'global_pool={global_pool!r}: {method} pools under its own masks; leave it out'
            )
        own = {k: kwargs.pop(k) for k in method_arguments(cls) if k in kwargs}
        self.method_name, self.method_args, self.in_chans = method, own, in_chans
        self.backbone_name, self.backbone_args = backbone, dict(kwargs)
        self.backbone = timm.create_model(
            backbone,
            pretrained=backbone_pretrained,
            num_classes=0,
            in_chans=in_chans,
            device=device,
            dtype=dtype,
            **kwargs,
        )
        if backbone_checkpoint:
            load_backbone(self.backbone, backbone_checkpoint)
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
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = self.feature_info[-1]['num_chs']
        self.method = self._build_method(device, dtype)

        cfg = self.backbone.pretrained_cfg
        height, width = cfg.get('input_size', (in_chans, 224, 224))[1:]
        if 'img_size' in kwargs:
            size = kwargs['img_size']
            height, width = (size, size) if isinstance(size, int) else size
        self.input_size = (height, width)
        self.fixed_size = self.input_size if cfg.get('fixed_input_size') else None
        if cls.needs_gradient_path:
            try:
                check_backbone_gradients(self.backbone, self.levels, (in_chans, height, width))
            except ValueError as error:
                raise ValueError(
                    f'{method} on {backbone}: {method} differentiates scores with respect to the '
                    f'inner feature map of {backbone}, and {error}'
                ) from None

    def _build_method(
        self, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> nn.Module:
        if self.num_classes == 0:
            return nn.Identity()
        channels = [info['num_chs'] for info in self.feature_info]
        method = get_method(self.method_name)(channels, self.num_classes, **self.method_args)
        return method.to(device=device, dtype=dtype)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The maps (N, C_s, H_s, W_s) the method reads, shallow to deep."""
        return read_maps(self.backbone, self.levels, x)

    def forward_head(self, features: Sequence[Tensor], pre_logits: bool = False) -> Tensor:
        """Scores (N, Y) of the maps, or the pooled last map (N, C) with ``pre_logits``."""
        if pre_logits:
            return features[-1].mean(dim=(2, 3))
        return self.method(features)

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
        return self.method.loss(self.forward_features(x), target)

    def attention_maps(self, x: Tensor, **asked: Any) -> list[Tensor]:
        """What the method looks at: one (N, K, H_s, W_s) stack of masks per level.

        Args:
            x: images (N, in_chans, H, W).
            **asked: what the method's own ``attention`` takes besides.
        """
        with self.method.looking_at(x) as x:
            return self.method.attention(self.forward_features(x), **asked)

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The layers that depend on the number of classes: the whole method."""
        return self.method

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Build the method anew for another number of classes; 0 removes it."""
        self.num_classes = num_classes
        weight = next(self.backbone.parameters())
        self.method = self._build_method(weight.device, weight.dtype)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's activations in the backward pass instead of storing them."""
        self.backbone.set_grad_checkpointing(enable)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The backbone's groups by depth (for layer decay), the method last."""

        def prefixed(pattern: Any) -> Any:
            if isinstance(pattern, str):
                return re.sub(r'^\^?', r'^backbone\\.', pattern)
            return [(prefixed(p), *rest) for p, *rest in pattern]

        groups = {k: prefixed(v) for k, v in self.backbone.group_matcher(coarse=coarse).items()}
        return groups

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """The backbone's parameters that timm does not decay."""
        names = getattr(self.backbone, 'no_weight_decay', set)
        return {f'backbone.{name}' for name in (names() if callable(names) else names)}
