"""Generalised-mean pooling: between average and maximum, by an exponent that is learned.

Radenovic, Tolias and Chum, *Fine-tuning CNN Image Retrieval with No Human Annotation*, TPAMI 2019,
https://arxiv.org/abs/1711.02512, section 3.2:

    f_c = (1 / |X| sum_x F_c(x)^p)^(1/p)                                                  (3)

Here a linear layer classifies f. p = 1 is the average, p -> infinity the maximum.

Decisions where the paper is silent:
  * what it looks at is each position's share of the sum, averaged over the channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgplugins


@fgplugins.register_method('gem')
class GeM(fgplugins.Method):
    """Generalised-mean pooling of the last map, then a linear layer; trained by cross-entropy.

    Args:
        in_channels: channels of the maps; the last one is read.
        num_classes: Y.
        p: the exponent to start from.

    Raises:
        ValueError: if ``p`` is not positive.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, p: float = 3.0) -> None:
        super().__init__(in_channels, num_classes)
        if p <= 0:
            raise ValueError(f'GeM: p={p}: must be positive')
        self.p = nn.Parameter(torch.tensor([float(p)]))
        self.classifier = nn.Linear(self.in_channels[-1], num_classes)

    def powers(self, features: Sequence[Tensor]) -> Tensor:
        """F^p (N, C, H, W) of the last map; the power of a negative number is taken as zero's."""
        self.check_features(features)
        return features[-1].clamp(min=1e-6).pow(self.p)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Scores (N, Y): logits."""
        f = self.powers(features).mean(dim=(2, 3)).pow(1 / self.p)  # Eq. 3
        return self.classifier(f)

    def attention(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Each position's share (N, 1, H, W) of what is pooled; it sums to one."""
        powers = self.powers(features)
        share = powers / powers.sum(dim=(2, 3), keepdim=True)
        return [share.mean(dim=1, keepdim=True)]

    def loss(self, features: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, as ``ce``."""
        return {'ce': F.cross_entropy(self(features), target)}
