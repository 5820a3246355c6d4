"""The network itself: row one of every table, the control of all others.

Its own embedding z goes through its own classifier. In most networks z is the mean of the last map
F, the global average pooling of Lin, Chen and Yan, *Network In Network*, ICLR 2014,
https://arxiv.org/abs/1312.4400, section 3.2, in the form every residual network uses:

    s_y = <w_y, z> + b_y,    z = mean_x F(x)

What it looks at is the class activation map of Zhou et al., *Learning Deep Features for
Discriminative Localization*, CVPR 2016, https://arxiv.org/abs/1512.04150:

    M_y(x) = <w_y, F(x)>                                                           (Eq. 2 there)

Where an image can have several classes (``multi_label=True``) it is trained by the multi-label soft
margin, as the baselines of ICASC (`fgplugins.methods.siou`, section 4.3) are.

Deviations: where z is more than a mean, w_y in Eq. 2 is HW times the derivative of s_y by F(x), of
which it is the closed form; a network of a class token has no such map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods.base import Method, NoClassMap
from fgplugins.methods.layers import score_gradient
from fgplugins.methods.registry import register_method

__all__ = ['GAP', 'class_activation']


def class_activation(
    classifier: nn.Module,
    scores: Tensor,
    feature: Tensor,
    embedding: Tensor,
    is_mean: bool,
) -> Tensor:
    """Class activation map (N, 1, H, W) of the highest score, its negative part cut off.

    Args:
        classifier: of the embedding.
        scores: (N, Y); of which the highest counts.
        feature: F (N, C, H, W).
        embedding: z (N, D) of F.
        is_mean: z is the mean of F; else both have a graph.

    Raises:
        NoClassMap: if z does not depend on F.
    """
    predicted = F.one_hot(scores.argmax(dim=1), scores.shape[1]).to(embedding.dtype)
    w = score_gradient(classifier, embedding, predicted)
    if is_mean:
        M = torch.einsum('nc,nchw->nhw', w, feature)  # Eq. 2
        return M.relu().unsqueeze(1)
    gradient = None
    if embedding.requires_grad and feature.requires_grad:
        (gradient,) = torch.autograd.grad(
            embedding, feature, w, retain_graph=True, allow_unused=True
        )
    if gradient is None:
        raise NoClassMap(
            'the embedding of this network, a class token for example, does not depend on the '
            'last map: no class activation map shows what its scores rest on'
        )
    HW = feature.shape[2] * feature.shape[3]
    return (HW * gradient * feature).sum(dim=1, keepdim=True).relu()  # Eq. 2


@register_method('gap')
class GAP(Method):
    """The network's own embedding and classifier, trained by cross-entropy.

    Args:
        in_channels: channels of the maps; the last one is read.
        num_classes: Y.
        embedding_channels: D, where the embedding is given; else it is the mean of the last map.
        multi_label: an image can have several classes: targets (N, Y) of zeros and ones, trained by
            the multi-label soft margin. Without it such targets would be taken for probabilities.
    """

    reads_embedding = True
    embedding_classifier = 'classifier'
    is_network = True

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        embedding_channels: int | None = None,
        *,
        multi_label: bool = False,
    ) -> None:
        super().__init__(in_channels, num_classes, embedding_channels)
        self.multi_label = multi_label or type(self).multi_label
        self.classifier = nn.Linear(self.head_channels, num_classes)

    def forward(self, features: Sequence[Tensor], embedding: Tensor | None = None) -> Tensor:
        """Scores (N, Y): logits."""
        return self.network_scores(self.embed(features, embedding))

    def attention(
        self, features: Sequence[Tensor], embedding: Tensor | None = None
    ) -> list[Tensor]:
        """Class activation map (N, 1, H, W) of the predicted class, its negative part cut off.

        Raises:
            NoClassMap: if the embedding does not depend on the last map.
        """
        z, is_mean = self.embed(features, embedding), self.embedding_channels is None
        scores = self.classifier(z)
        return [class_activation(self.classifier, scores, features[-1], z, is_mean)]

    def loss(
        self, features: Sequence[Tensor], target: Tensor, embedding: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross-entropy, as ``ce``; of several classes ``soft_margin``."""
        given = {} if embedding is None else {'embedding': embedding}
        return self.classification_loss(self(features, **given), target)

    def classification_loss(self, scores: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The term of scores (N, Y)."""
        if self.multi_label:
            return {'soft_margin': F.multilabel_soft_margin_loss(scores, target)}
        return {'ce': F.cross_entropy(scores, target)}

    @property
    def attention_needs_gradient(self) -> bool:
        return self.needs_gradient_path or self.embedding_channels is not None
