"""Terms of the papers' losses as MMPretrain losses, usable on maps of one's own."""

from __future__ import annotations

from torch import Tensor, nn

from fgplugins.methods.warn import mask_diversity
from fgplugins.zoo_mmpretrain.registry import MODELS, register

__all__ = ['MaskDiversityLoss']


class MaskDiversityLoss(nn.Module):
    """WARN's regulariser: keeps the masks of a level apart. See `fgplugins.methods.warn`.

    Args:
        loss_weight: factor on the term.
    """

    def __init__(self, loss_weight: float = 1e-3) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, masks: Tensor) -> Tensor:
        """Scalar, from masks (N, K, H, W)."""
        return self.loss_weight * mask_diversity(masks)


register(MODELS, MaskDiversityLoss)
