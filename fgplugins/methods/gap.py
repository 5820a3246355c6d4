"""Global average pooling and a linear classifier: the control, row one of every table.

Lin, Chen and Yan, *Network In Network*, ICLR 2014, https://arxiv.org/abs/1312.4400, section 3.2; in
the form every residual network uses: the pooled map goes through one linear layer.

    s_y = <w_y, mean_x F(x)> + b_y

What it looks at, the class activation map of Zhou et al., *Learning Deep Features for
Discriminative Localization*, CVPR 2016, https://arxiv.org/abs/1512.04150, falls out of the same
weights:

    M_y(x) = <w_y, F(x)>                                                           (Eq. 2 there)

Deviations: none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods.base import Method
from fgplugins.methods.layers import linear_weight
from fgplugins.methods.registry import register_method

__all__ = ['GAP']


@register_method('gap')
class GAP(Method):
    """Average pooling of the last map, then a linear layer; trained by cross-entropy.

    Args:
        in_channels: channels of the maps; the last one is read.
        num_classes: Y.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.classifier = nn.Linear(self.in_channels[-1], num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Scores (N, Y): logits."""
        self.check_features(features)
        return self.classifier(features[-1].mean(dim=(2, 3)))

    def attention(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Class activation map (N, 1, H, W) of the predicted class, its negative part cut off."""
        predicted = self(features).argmax(dim=1)
        w = linear_weight(self.classifier)[predicted]
        M = torch.einsum('nc,nchw->nhw', w, features[-1])  # Eq. 2
        return [M.relu().unsqueeze(1)]

    def loss(self, features: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, as ``ce``."""
        return {'ce': F.cross_entropy(self(features), target)}

    @property
    def pooled_classifier(self) -> nn.Linear | None:
        return self.classifier if type(self).forward is GAP.forward else None
