"""MMPretrain heads, one for each registered method, made from the METHODS registry.

``dict(type='WARNHead', num_classes=200, heads=4)``: the method's own hyper-parameters by their
names. Third parties' methods become heads the same way, when they are registered.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from mmpretrain.evaluation import Accuracy
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample, label_to_onehot
from torch import Tensor

from fgplugins.methods import Method, on_register
from fgplugins.methods.base import Given
from fgplugins.methods.clan import BranchClassifiers
from fgplugins.networks import gates
from fgplugins.utils.modes import in_testing
from fgplugins.zoo_mmpretrain.backbone_maps import is_vector, split_embedding
from fgplugins.zoo_mmpretrain.registry import MODELS, register

__all__ = ['MethodHead', 'MultiBranchHead', 'stack_targets']


def stack_targets(
    data_samples: list[DataSample], num_classes: int, multi_label: bool = False
) -> Tensor:
    """Labels (N,), or (N, Y) where there are several or Mixup or its kin has made scores.

    Raises:
        ValueError: for an image of several classes, or none, without ``multi_label``.
    """
    if 'gt_score' in data_samples[0]:
        return torch.stack([sample.gt_score.float() for sample in data_samples])
    if multi_label:
        labels = [label_to_onehot(sample.gt_label, num_classes) for sample in data_samples]
        return torch.stack(labels).float()
    several = [n for sample in data_samples if (n := sample.gt_label.numel()) != 1]
    if several:
        raise ValueError(
            f'an image has {several[0]} labels: set head.multi_label=True, which GAPHead and '
            'SIoUHead have, or give every image one label'
        )
    return torch.cat([sample.gt_label for sample in data_samples])


class MethodHead(ClsHead):
    """Puts a method's scores and losses into MMPretrain's terms.

    Args:
        num_classes: Y.
        in_channels: channels of the maps read, shallow to deep. `FineGrainedClassifier` asks the
            backbone for them; with a plain ``ImageClassifier`` they must be given.
        embedding_channels: of the embedding, where the backbone gives one behind the maps and the
            method reads it; `FineGrainedClassifier` asks for that, too.
        taps: how many of the backbone's last maps to read; the method's default if None.
        topk: for MMPretrain's metrics.
        cal_acc: also give the accuracy of each training batch, as the method scores it in testing.
        init_cfg: mmengine's initialisation.
        **hyperparameters: the method's, by its own names.

    Raises:
        ValueError: if ``in_channels`` is missing or disagrees with ``taps``.
    """

    method_class: type[Method]
    has_second_stream = False  # a classifier that trains the method's regularizer says so

    def __init__(
        self,
        num_classes: int,
        in_channels: int | Sequence[int] | None = None,
        taps: int | None = None,
        topk: int | tuple[int, ...] = (1,),
        cal_acc: bool = False,
        init_cfg: dict | None = None,
        embedding_channels: int | None = None,
        **hyperparameters: object,
    ) -> None:
        super().__init__(topk=topk, cal_acc=cal_acc, init_cfg=init_cfg)
        del self.loss_module  # the loss belongs to the method
        if 'loss' in hyperparameters:
            raise ValueError(
                f'{type(self).__name__} takes no loss: it has the loss of its method; leave it out'
            )
        if isinstance(in_channels, int):
            in_channels = (in_channels,)
        if in_channels is None:
            raise ValueError(
                f'{type(self).__name__} needs in_channels, the channels of the maps it reads: give '
                "them, or use model.type='FineGrainedClassifier', which asks the backbone"
            )
        if taps is not None and taps != len(in_channels):
            raise ValueError(
                f'{type(self).__name__}: taps={taps}, but in_channels={list(in_channels)} '
                f'describes {len(in_channels)} maps'
            )
        if embedding_channels is not None:
            hyperparameters['embedding_channels'] = embedding_channels
        self.method = self.method_class(in_channels, num_classes, **hyperparameters)

    @classmethod
    def arguments(cls) -> set[str] | None:
        """The names of all that the head takes, the method's included; None if that takes any."""
        own = cls.method_class.hyperparameters()
        if any(p.kind is p.VAR_KEYWORD for p in own):
            return None
        ours = {
            'num_classes',
            'in_channels',
            'taps',
            'topk',
            'cal_acc',
            'init_cfg',
            'embedding_channels',
        }
        return ours | {p.name for p in own}

    @property
    def num_classes(self) -> int:
        return self.method.num_classes

    def pre_logits(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the method reads: the backbone's last ``taps`` maps, and the embedding behind them.

        Args:
            feats: maps (N, C_s, H_s, W_s), and the embedding (N, D) if the method was built for it.
        """
        taps = self.method.taps
        if self.method.embedding_channels is None:
            if is_vector(feats[-1]):
                raise ValueError(
                    f'{type(self).__name__}: the backbone gives an embedding of '
                    f'{feats[-1].shape[1]} channels behind its maps: '
                    + (
                        f'set head.embedding_channels={feats[-1].shape[1]}, or leave it out by '
                        if self.method.reads_embedding
                        else 'the method reads none, leave it out by '
                    )
                    + 'backbone.embedding=False'
                )
            return tuple(feats[-taps:])
        return *feats[-taps - 1 : -1], feats[-1]

    def given(self, feats: tuple[Tensor, ...]) -> Given:
        """The same, as the method takes it."""
        read = self.pre_logits(feats)
        return read if self.method.embedding_channels is None else (read[:-1], read[-1])

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Scores (N, Y)."""
        features, named = self.method.split(self.given(feats))
        return self.method(features, **named)

    def show(
        self, classifier: BaseClassifier, inputs: Tensor, **asked: object
    ) -> tuple[Tensor, list[Tensor]]:
        """Scores (N, Y) and masks per level of preprocessed images, the network's gates first.

        Args:
            classifier: whose head this is.
            inputs: (N, channels, H, W).
            **asked: of the method's `questions`.
        """

        def read(x: Tensor) -> Given:
            return self.given(classifier.extract_feat(x))

        return gates.show(self.method, classifier.backbone, read, inputs, **asked)

    def _get_predictions(
        self, cls_score: Tensor, data_samples: list[DataSample] | None
    ) -> list[DataSample]:
        """MMPretrain's; where images can have several classes, those of a score above one half."""
        if not self.method.multi_label:
            return super()._get_predictions(cls_score, data_samples)
        samples = [DataSample() for _ in cls_score] if data_samples is None else data_samples
        for sample, score in zip(samples, cls_score.sigmoid(), strict=True):
            sample.set_pred_score(score).set_pred_label((score >= 0.5).nonzero()[:, 0])
        return samples

    def target(self, data_samples: list[DataSample]) -> Tensor:
        """What the method's loss takes: labels (N,) or (N, Y)."""
        return stack_targets(data_samples, self.num_classes, self.method.multi_label)

    def loss(self, feats: tuple[Tensor, ...], data_samples: list[DataSample]) -> dict[str, Tensor]:
        """The method's terms, each named ``loss_<term>`` so that mmengine sums them.

        Raises:
            RuntimeError: if the method also trains a second network, and nobody does.
        """
        return self.loss_of(self.given(feats), data_samples)

    def loss_of(self, given: Given, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """`loss`, of what the method is given."""
        if self.method.has_regularizer and not self.has_second_stream:
            raise RuntimeError(
                f'{type(self).__name__} trains beside a second network: use model.type='
                "'FineGrainedClassifier', which holds it"
            )
        target = self.target(data_samples)
        features, named = self.method.split(given)
        terms = self.method.loss(features, target, **named)
        losses = {f'loss_{name}': value for name, value in terms.items()}
        if self.cal_acc and target.ndim == 1:
            with torch.no_grad(), in_testing(self.method):
                scores = self.method(features, **named)
            topk = [k for k in self.topk if k <= self.num_classes]
            found = Accuracy.calculate(scores, target, topk=topk)
            losses |= {f'accuracy_top-{k}': a for k, a in zip(topk, found, strict=True)}
        return losses


class MultiBranchHead(ClsHead):
    """Pools and classifies every map on its own, averages the scores: the head behind `CLANNeck`.

    Args:
        num_classes: Y.
        in_channels: channels of what is classified, in order: mid-level maps, the top map or the
            embedding, the CLSA map.
        branches: which of 'mid1' ... 'top', 'clsa' predict; all if None. All are trained.
        spatial: with a CLSA map, as `CLANNeck` has or has not.
        average: what the prediction is the mean of: 'logits' | 'probabilities'.
        topk: for MMPretrain's metrics.
        init_cfg: mmengine's initialisation.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        branches: Sequence[str] | None = None,
        spatial: bool = True,
        average: str = 'logits',
        topk: int | tuple[int, ...] = (1,),
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(topk=topk, init_cfg=init_cfg)
        del self.loss_module
        self.num_classes = num_classes
        self.spatial = spatial
        self.classifier = BranchClassifiers(in_channels, num_classes, branches, spatial, average)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> list[Tensor]:
        """Each map (N, C, H, W), pooled to (N, C); an embedding (N, D) in place of the top one.

        Raises:
            ValueError: for another number of maps than there are branches.
        """
        maps, embedding = split_embedding(feats)
        names = self.classifier.names
        if len(maps) != len(names):
            raise ValueError(
                f'MultiBranchHead has the branches {", ".join(names)}, it was given {len(maps)} '
                f'maps: set spatial={self.spatial} in CLANNeck, too'
            )
        pooled = [f.mean(dim=(2, 3)) for f in maps]
        if embedding is not None:
            pooled[names.index('top')] = embedding
        return pooled

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Scores (N, Y)."""
        return self.classifier.predict(self.classifier(self.pre_logits(feats)))

    def loss(self, feats: tuple[Tensor, ...], data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Cross-entropy of every branch."""
        scores = self.classifier(self.pre_logits(feats))
        terms = self.classifier.loss(scores, stack_targets(data_samples, self.num_classes))
        return {f'loss_{name}': value for name, value in terms.items()}


register(MODELS, MultiBranchHead)


def _register_head(name: str, cls: type[Method]) -> None:
    summary = (cls.__doc__ or '').strip().split('\n')[0]
    head = type(
        f'{cls.__name__}Head',
        (MethodHead,),
        {
            'method_class': cls,
            '__module__': __name__,
            '__doc__': f'Head of the method {name!r}. {summary}\n\n{MethodHead.__doc__}',
        },
    )
    try:
        globals()[head.__name__] = register(MODELS, head)
    except ValueError as error:  # one method's name must not cost the others theirs
        warnings.warn(
            f'fgplugins: the method {name!r} of {cls.__module__} has no MMPretrain head: {error}',
            stacklevel=2,
        )


on_register(_register_head)
