"""An image classifier that asks its backbone which maps it gives, so that configs need not say."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import DATASETS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fgplugins.errors import UserError
from fgplugins.methods import Method
from fgplugins.utils.probing import (
    check_gradient_path,
    make_twice_differentiable,
    turn_into_buffers,
    unused_parameters,
)
from fgplugins.zoo_mmpretrain.backbone_maps import (
    ask_channels,
    ask_image_channels,
    ask_view_size,
    build_backbone,
    has_channels_last,
    probe_maps,
    read_maps,
)
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.registry import MODELS, register

__all__ = ['FineGrainedClassifier', 'SecondStream']

TRAINING_ONLY = ('second_stream.', 'regularizer.')


class SecondStream(BaseModule):
    """A second network of the backbone's architecture (and neck's), which exists in training only.

    Args:
        backbone: its backbone.
        neck: its neck.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The maps (N, C_s, H_s, W_s), as the backbone (and neck) gives them."""
        return read_maps(self.backbone, self.neck, inputs)


class FineGrainedClassifier(ImageClassifier):
    """MMPretrain's ``ImageClassifier``, its method head wired to whatever the backbone gives.

    ``head.in_channels`` is found by asking the backbone; if it is given, it is checked. A method
    that trains beside a second network gets one of the same architecture, with the same initial
    weights where ``init_cfg`` names some.

    Args:
        backbone: any registered backbone that gives maps; several levels by its ``out_indices``.
        neck: any neck that gives maps.
        head: a method's head, as ``dict(type='WARNHead', num_classes=200)``.
        pretrained: checkpoint of the whole model.
        train_cfg: batch augmentations.
        data_preprocessor: MMPretrain's.
        deployed: leave out what exists in training only; checkpoints of training load all the same.
        init_cfg: mmengine's initialisation.

    Raises:
        ValueError: if the backbone gives fewer maps than the method reads, other channels than
            ``head.in_channels`` says, or maps that a method cannot differentiate scores by.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        pretrained: str | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        deployed: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        configs = copy.deepcopy((backbone, neck))
        backbone, neck = self._build(backbone, neck)
        stated = None if isinstance(configs[0], nn.Module) else configs[0].get('in_channels')
        image_channels = stated or ask_image_channels(backbone)
        if isinstance(head, dict):
            head = self._wire(head, backbone, neck, image_channels)
        super().__init__(backbone, neck, head, pretrained, train_cfg, data_preprocessor, init_cfg)
        self.second_stream = self.regularizer = None
        method = getattr(self.head, 'method', None)
        if method is None:
            return
        if not deployed:
            unused = self._fit(method, image_channels)
        if method.has_regularizer:
            self.head.has_second_stream = True
            self._register_load_state_dict_pre_hook(self._drop_training_only)
            if not deployed:
                second = SecondStream(*self._build(*configs))
                size = ask_view_size(second.backbone, second.neck, image_channels)
                turn_into_buffers(second, unused)
                self.second_stream, self.regularizer = second, method.regularizer(size)

    def _fit(self, method: Method, image_channels: int) -> list[str]:
        """Adapt the network to the maps that the method reads.

        Parameters that these do not depend on (the normalisation of other levels, a class token's
        layers) stop being parameters, so that all of them get a gradient.

        Returns:
            Their names, as those of a `SecondStream`.

        Raises:
            ValueError: if the method differentiates scores, and this network cannot be.
        """
        if method.needs_gradient_path:
            for layer in make_twice_differentiable(self.backbone):
                layer.fused_attn = False
        network = SecondStream(self.backbone, self.neck if self.with_neck else None)
        try:
            with self._attention():
                maps = probe_maps(network.backbone, network.neck, image_channels, gradients=True)
        except ValueError:
            if method.needs_gradient_path:
                raise
            return []  # the channels were typed, nothing else is known
        maps = maps[-method.taps :]
        if method.needs_gradient_path:
            self._check_gradients(maps)
        trained = {name for name, p in network.named_parameters() if p.requires_grad}
        unused = [name for name in unused_parameters(network, maps) if name in trained]
        turn_into_buffers(network, unused)
        return unused

    @staticmethod
    def _build(
        backbone: dict | nn.Module, neck: dict | nn.Module | None
    ) -> tuple[nn.Module, nn.Module | None]:
        """A backbone and a neck from their configs; modules stay as they are."""
        if not isinstance(backbone, nn.Module):
            backbone = build_backbone(backbone)
        if neck is not None and not isinstance(neck, nn.Module):
            neck = MMPRETRAIN_MODELS.build(neck)
        return backbone, neck

    def _check_gradients(self, maps: list[Tensor]) -> None:
        """Refuse a backbone that scores cannot be differentiated by, naming it."""
        try:
            check_gradient_path(maps)
        except ValueError as error:
            raise ValueError(
                f'{type(self.head).__name__} differentiates scores with respect to the inner '
                f'feature map of {type(self.backbone).__name__}, and {error}'
            ) from None

    def _drop_training_only(self, state_dict: dict, prefix: str, *_: object) -> None:
        """Take no notice of weights that exist in training only, where this model has none."""
        if self.regularizer is None:
            for key in list(state_dict):
                if key.startswith(tuple(f'{prefix}{name}' for name in TRAINING_ONLY)):
                    del state_dict[key]

    @staticmethod
    def _wire(head: dict, backbone: nn.Module, neck: nn.Module | None, image_channels: int) -> dict:
        """The head's config with ``in_channels`` filled in or checked."""
        cls = head['type']
        cls = MMPRETRAIN_MODELS.get(cls) if isinstance(cls, str) else cls
        if not (isinstance(cls, type) and issubclass(cls, MethodHead)):
            return head
        name, source = cls.__name__, type(backbone).__name__
        stated = head.get('in_channels')
        stated = (stated,) if isinstance(stated, int) else stated
        try:
            given = ask_channels(backbone, neck, image_channels)
        except ValueError:
            if stated is None:
                raise
            return head
        if stated is not None:
            taps = len(stated)
        else:
            taps = head.get('taps') or cls.method_class.default_taps
        if taps > len(given):
            raise ValueError(
                f'{name} reads taps={taps} feature maps, {source} gives {len(given)} with '
                f'channels {given}: give more levels (out_indices of the backbone) or '
                f'set head.taps to {len(given)} or less'
            )
        found = given[-taps:]
        if stated is not None and list(stated) != found:
            raise ValueError(
                f'{name}: in_channels={list(stated)}, but the last {taps} map(s) of {source} have '
                f'{found} channels: set in_channels={found} or leave it out'
            )
        return {**head, 'in_channels': found}

    def _attention(self) -> AbstractContextManager:
        """Attention unfused, where gradients are differentiated: PyTorch cannot do that fused."""
        twice = getattr(getattr(self.head, 'method', None), 'needs_gradient_path', False)
        return sdpa_kernel(SDPBackend.MATH) if twice else nullcontext()

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> tuple[Tensor, ...]:
        """MMPretrain's."""
        with self._attention() if torch.is_grad_enabled() else nullcontext():
            if stage == 'pre_logits' or not has_channels_last(self.backbone):
                return super().extract_feat(inputs, stage)
            neck = self.neck if self.with_neck and stage == 'neck' else None
            return read_maps(self.backbone, neck, inputs)

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """The head's terms, and those of the method's training-only part."""
        method = getattr(self.head, 'method', None)
        if method is None:
            features = self.extract_feat(inputs)
        else:
            features = method.features_for_loss(self.extract_feat, inputs)
        terms = self.head.loss(features, data_samples)
        if self.regularizer is not None:
            target, maps = self.head.target(data_samples), self.head.pre_logits(features)
            added = self.regularizer(inputs, maps, target, self.second_maps)
            terms |= {f'loss_{name}': value for name, value in added.items()}
        return terms

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """mmengine's; a term that is not finite ends the training.

        Raises:
            UserError: naming the term and the iteration.
        """
        loss, values = super().parse_losses(losses)
        if not self.training:
            return loss, values
        hub = MessageHub.get_current_instance()
        for name, value in values.items():
            if name != 'loss' and not value.isfinite().all():
                raise UserError(
                    f'the loss term {name!r} is {value.item()} in iteration '
                    f'{hub.get_info("iter", 0) + 1}: lower the rate, or look at the images of '
                    'that batch'
                )
        terms = {name: value.detach() for name, value in values.items()}
        hub.update_info('loss_terms', terms, resumed=False)  # for who finds bad gradients
        return loss, values

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """MMPretrain's depth of a parameter; the second network's are as deep as their twins."""
        return super().get_layer_depth(param_name.removeprefix('second_stream.'))

    @property
    def _dataset_meta(self) -> dict:
        """What MMPretrain's ``get_model`` notes of a checkpoint: the names of the classes."""
        return self.__dict__.get('_classes_of_data', {})

    @_dataset_meta.setter
    def _dataset_meta(self, meta: dict) -> None:
        count, classes = getattr(self.head, 'num_classes', None), meta.get('classes')
        if count and classes and len(classes) != count:
            # without a checkpoint, get_model takes the names that the type of data set has
            if any(meta is getattr(d, 'METAINFO', None) for d in DATASETS.module_dict.values()):
                meta = {}
            else:
                raise UserError(
                    f'the checkpoint is of {len(classes)} classes, the model has {count}: give '
                    f'get_model(..., head=dict(num_classes={len(classes)})), or the config that '
                    'was saved in the work folder'
                )
        self.__dict__['_classes_of_data'] = meta

    def second_maps(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The second network's maps, of the levels that the method reads."""
        return self.head.pre_logits(self.second_stream(inputs))

    def attention_maps(self, inputs: Tensor, **asked: object) -> list[Tensor]:
        """What the method looks at in preprocessed images: (N, K, H_s, W_s) masks per level."""
        return self.head.show(self.extract_feat, inputs, **asked)[1]


register(MODELS, FineGrainedClassifier)
