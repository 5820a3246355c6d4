"""An image classifier that asks its backbone which maps it gives, so that configs need not say."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModule
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import DATASETS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fgplugins.errors import UserError
from fgplugins.methods import Method
from fgplugins.methods.base import Given
from fgplugins.networks.reading import tail_of
from fgplugins.utils.probing import (
    check_gradient_path,
    make_twice_differentiable,
    turn_into_buffers,
    unused_parameters,
)
from fgplugins.zoo_mmpretrain.backbone_maps import (
    ask_image_channels,
    ask_view_size,
    build_backbone,
    more_levels,
    probe_network,
    read_network,
)
from fgplugins.zoo_mmpretrain.heads import MethodHead
from fgplugins.zoo_mmpretrain.registry import MODELS, register
from fgplugins.zoo_mmpretrain.timm_network import TimmNetwork

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

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """The maps (N, C_s, H_s, W_s) and the embedding (N, D), as `read_network` gives them."""
        return read_network(self.backbone, self.neck, inputs)


class FineGrainedClassifier(ImageClassifier):
    """MMPretrain's ``ImageClassifier``, its method head wired to whatever the backbone gives.

    ``head.in_channels`` is found by asking the backbone; if it is given, it is checked. A backbone
    that gives fewer maps than the method reads is asked for those below, too. What the backbone and
    neck make of the last map is the network's own embedding: a `TimmNetwork` has its own head, and
    a neck that gives vectors, as ``GlobalAveragePooling``, lets the maps pass it by. A method that
    trains beside a second network gets one of the same architecture, with the same initial weights
    where ``init_cfg`` names some.

    Args:
        backbone: any registered backbone that gives maps; several levels by its ``out_indices``.
        neck: any neck.
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
        if isinstance(head, dict) and isinstance(backbone, dict):
            backbone = self._ask_timm(backbone, head)
        configs = copy.deepcopy((backbone, neck))
        backbone, neck = self._build(backbone, neck)
        stated = None if isinstance(configs[0], nn.Module) else configs[0].get('in_channels')
        image_channels = stated or ask_image_channels(backbone)
        method_class = self._method_class(head)
        if method_class is not None:
            taps = self._taps(head, method_class)
            fewer = self._give_more(configs[0], backbone, neck, image_channels, taps, method_class)
            if fewer is not None:
                configs = fewer, configs[1]
                backbone, neck = self._build(*copy.deepcopy(configs))
            head = self._wire(head, method_class, backbone, neck, image_channels)
        super().__init__(backbone, neck, head, pretrained, train_cfg, data_preprocessor, init_cfg)
        self.second_stream = self.regularizer = None
        method = getattr(self.head, 'method', None)
        if method is None:
            return
        self._take_classifier(method)
        if not deployed:
            unused = self._fit(method, image_channels)
        if method.has_regularizer:
            self.head.has_second_stream = True
            self._register_load_state_dict_pre_hook(self._drop_training_only)
            if not deployed:
                second = SecondStream(*self._build(*configs))
                if isinstance(second.backbone, TimmNetwork):
                    second.backbone.take_classifier()
                size = ask_view_size(second.backbone, second.neck, image_channels)
                turn_into_buffers(second, unused)
                self.second_stream, self.regularizer = second, method.regularizer(size)

    @staticmethod
    def _method_class(head: object) -> type[Method] | None:
        """The method that a head's config is of."""
        cls = head.get('type') if isinstance(head, dict) else None
        cls = MMPRETRAIN_MODELS.get(cls) if isinstance(cls, str) else cls
        is_ours = isinstance(cls, type) and issubclass(cls, MethodHead)
        return cls.method_class if is_ours else None

    @staticmethod
    def _taps(head: dict, method_class: type[Method]) -> int:
        stated = head.get('in_channels')
        if stated is not None:
            return 1 if isinstance(stated, int) else len(stated)
        return head.get('taps') or method_class.default_taps

    @classmethod
    def _ask_timm(cls, backbone: dict, head: dict) -> dict:
        """The config of a `TimmNetwork`, with what the head knows; of another backbone as it is."""
        kind, method_class = backbone.get('type'), cls._method_class(head)
        kind = MMPRETRAIN_MODELS.get(kind) if isinstance(kind, str) else kind
        if kind is not TimmNetwork or method_class is None:
            return backbone
        known = {
            'num_classes': head.get('num_classes', 0),
            'embedding': method_class.reads_embedding,
        }
        if backbone.get('levels') is None:
            known['taps'] = cls._taps(head, method_class)
        return {**known, **backbone}

    def _take_classifier(self, method: Method) -> None:
        """Put a timm network's own classifier, and its dropout, into the method."""
        if not isinstance(self.backbone, TimmNetwork) or not method.embedding_classifier:
            return
        method.head_drop = nn.Dropout(self.backbone.drop_rate)
        count, classifier = self.backbone.num_classes, self.backbone.take_classifier()
        if classifier is not None and count != method.num_classes:
            raise ValueError(
                f'model.backbone.num_classes={count}, model.head.num_classes={method.num_classes}: '
                "leave the backbone's out, which takes the head's"
            )
        if classifier is not None:
            method.set_submodule(method.embedding_classifier, classifier)

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
                maps, embedding = probe_network(
                    network.backbone, network.neck, image_channels, gradients=True
                )
        except ValueError:
            if method.needs_gradient_path:
                raise
            return []  # the channels were typed, nothing else is known
        read = maps[-method.taps :]
        if method.embedding_channels is not None:
            read = [*read, embedding]
        if method.needs_gradient_path:
            self._check_gradients(read)
        trained = {name for name, p in network.named_parameters() if p.requires_grad}
        unused = [name for name in unused_parameters(network, read) if name in trained]
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
    def _give_more(
        settings: dict | nn.Module,
        backbone: nn.Module,
        neck: nn.Module | None,
        image_channels: int,
        taps: int,
        method_class: type[Method],
    ) -> dict | None:
        """The backbone's config, to give the levels below too if it gives too few; None if not."""
        if isinstance(settings, nn.Module) or isinstance(backbone, TimmNetwork):
            return None
        try:
            given = len(probe_network(backbone, neck, image_channels)[0])
        except ValueError:
            return None
        more = more_levels(settings, backbone, given, taps)
        if more is not None:
            print_log(
                f'{method_class.__name__} reads {taps} maps: model.backbone.out_indices='
                f'{more["out_indices"]} in place of {settings.get("out_indices")}',
                'current',
            )
        return more

    @classmethod
    def _wire(
        cls,
        head: dict,
        method_class: type[Method],
        backbone: nn.Module,
        neck: nn.Module | None,
        image_channels: int,
    ) -> dict:
        """The head's config with ``in_channels`` filled in or checked, and the embedding's."""
        name, source = f'{method_class.__name__}Head', type(backbone).__name__
        stated = head.get('in_channels')
        stated = (stated,) if isinstance(stated, int) else stated
        try:
            maps, embedding = probe_network(backbone, neck, image_channels, gradients=True)
        except ValueError:
            if stated is None:
                raise
            return head
        given, taps = [m.shape[1] for m in maps], cls._taps(head, method_class)
        option = 'taps or levels' if isinstance(backbone, TimmNetwork) else 'out_indices'
        if taps > len(given):
            raise ValueError(
                f'{name} reads taps={taps} feature maps, {source} gives {len(given)} with '
                f'channels {given}: give more levels ({option} of the backbone) or '
                f'set head.taps to {len(given)} or less'
            )
        found = given[-taps:]
        if stated is not None and list(stated) != found:
            raise ValueError(
                f'{name}: in_channels={list(stated)}, but the last {taps} map(s) of {source} have '
                f'{found} channels: set in_channels={found} or leave it out'
            )
        head = {**head, 'in_channels': found}
        if method_class.reads_embedding and embedding is not None:
            with torch.enable_grad():
                if isinstance(backbone, TimmNetwork) or tail_of(embedding, maps[-1]) != 'mean':
                    head.setdefault('embedding_channels', embedding.shape[1])
        return head

    def _attention(self) -> AbstractContextManager:
        """Attention unfused, where gradients are differentiated: PyTorch cannot do that fused."""
        twice = getattr(getattr(self.head, 'method', None), 'needs_gradient_path', False)
        return sdpa_kernel(SDPBackend.MATH) if twice else nullcontext()

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> tuple[Tensor, ...]:
        """MMPretrain's; with a method's head the maps and, last, the embedding if that reads it."""
        method = getattr(self.head, 'method', None)
        with self._attention() if torch.is_grad_enabled() else nullcontext():
            if method is None or stage == 'backbone':
                return super().extract_feat(inputs, stage)
            features = self._features(self.backbone, self.neck if self.with_neck else None, inputs)
        return self.head.pre_logits(features) if stage == 'pre_logits' else features

    def _features(
        self, backbone: nn.Module, neck: nn.Module | None, inputs: Tensor
    ) -> tuple[Tensor, ...]:
        maps, embedding = read_network(backbone, neck, inputs)
        reads = self.head.method.embedding_channels is not None
        return (*maps, embedding) if reads else tuple(maps)

    def read(self, inputs: Tensor) -> Given:
        """What the method is given of preprocessed images (N, channels, H, W)."""
        return self.head.given(self.extract_feat(inputs))

    def read_second(self, inputs: Tensor) -> Given:
        """What the second network gives, likewise."""
        second = self.second_stream
        return self.head.given(self._features(second.backbone, second.neck, inputs))

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """The head's terms, and those of the method's training-only part."""
        method = getattr(self.head, 'method', None)
        if method is None:
            return super().loss(inputs, data_samples)
        given = method.features_for_loss(self.read, inputs)
        terms = self.head.loss_of(given, data_samples)
        if self.regularizer is not None:
            target, (maps, named) = self.head.target(data_samples), method.split(given)
            added = self.regularizer(inputs, maps, target, self.read_second, **named)
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

    def attention_maps(self, inputs: Tensor, **asked: object) -> list[Tensor]:
        """What the method looks at in preprocessed images: (N, K, H_s, W_s) masks per level.

        A network that has gates of its own, as PAN's, gives them first, (N, 1, H, W) each.
        """
        return self.head.show(self, inputs, **asked)[1]


register(MODELS, FineGrainedClassifier)
