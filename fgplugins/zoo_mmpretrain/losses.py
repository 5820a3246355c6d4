"""Terms of the papers' losses as MMPretrain losses, usable on maps of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fgplugins.methods import art, siou
from fgplugins.methods.warn import mask_diversity
from fgplugins.zoo_mmpretrain.registry import MODELS, register

__all__ = [
    'AttentionConsistencyLoss',
    'AttentionRestrictionLoss',
    'ContrastiveReinforcementLoss',
    'MaskDiversityLoss',
    'SoftIoULoss',
]


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


class SoftIoULoss(nn.Module):
    """ICASC's sIoU (Eq. 6) of attention maps. See `fgplugins.methods.siou`.

    Args:
        loss_weight: factor on the term.
        normalize: divide each map by its largest value in the image first.
    """

    def __init__(self, loss_weight: float = 1.0, normalize: bool = True) -> None:
        super().__init__()
        self.loss_weight, self.normalize = loss_weight, normalize

    def forward(self, target: Tensor, confusing: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scalar, from non-negative maps (N, H, W) of two classes, inside a mask (N, H, W)."""
        if self.normalize:
            target, confusing = siou.normalized(target), siou.normalized(confusing)
        mask = torch.ones_like(target) if mask is None else mask
        return self.loss_weight * siou.soft_iou(target, confusing, mask).mean()


class AttentionConsistencyLoss(nn.Module):
    """ICASC's L_ac (Eqs. 7, 8): the inner attention has to lie where the last one does.

    Args:
        loss_weight: factor on the term.
        alpha: of Eq. 8.
        omega: steepness of the mask.
        sigma: threshold of the mask, as a share of the largest attention.
        detach_mask: it is not differentiated through the mask.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        alpha: float = 1.0,
        omega: float = 100.0,
        sigma: float = 0.55,
        detach_mask: bool = False,
    ) -> None:
        super().__init__()
        self.loss_weight, self.alpha, self.omega, self.sigma = loss_weight, alpha, omega, sigma
        self.detach_mask = detach_mask

    def forward(self, inner: Tensor, last: Tensor) -> Tensor:
        """Scalar, from non-negative maps of one class: inner (N, h, w), last (N, H, W)."""
        mask = siou.target_region(siou.normalized(last), self.omega, self.sigma)
        mask = siou.resize_mask(mask.detach() if self.detach_mask else mask, inner)
        loss = siou.attention_consistency(siou.normalized(inner), mask, self.alpha)
        return self.loss_weight * loss.mean()


class AttentionRestrictionLoss(nn.Module):
    """CRA-CNN's L_res (Eq. 7). See `fgplugins.methods.art`.

    Args:
        loss_weight: factor on the term.
        expectation: E: x, y, scale, angle.
        thresholds: T.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        expectation: Sequence[float] = (0.0, 0.0, 0.5, 0.0),
        thresholds: Sequence[float] = (0.4, 0.4, 0.4, math.pi),
    ) -> None:
        super().__init__()
        self.loss_weight, self.expectation, self.thresholds = loss_weight, expectation, thresholds

    def forward(self, parameters: Tensor) -> Tensor:
        """Scalar, from restricted attention parameters (N, 4)."""
        loss = art.attention_restriction(parameters, self.expectation, self.thresholds)
        return self.loss_weight * loss.mean()


class ContrastiveReinforcementLoss(nn.Module):
    """CRA-CNN's L_cntr (Eq. 8) over the batch's pairs. See `fgplugins.methods.art`.

    Args:
        loss_weight: factor on the term.
        margin: of Eq. 8.
        normalize: compare features of length 1.
    """

    def __init__(
        self, loss_weight: float = 1.0, margin: float = 0.7, normalize: bool = True
    ) -> None:
        super().__init__()
        self.loss_weight, self.margin, self.normalize = loss_weight, margin, normalize

    def forward(self, attention: Tensor, redundancy: Tensor) -> Tensor:
        """Scalar, from features (N, D) of the attention and of the redundancy views."""
        return self.loss_weight * art.contrastive_reinforcement(
            attention, redundancy, self.margin, self.normalize
        )


for loss in (
    AttentionConsistencyLoss,
    AttentionRestrictionLoss,
    ContrastiveReinforcementLoss,
    MaskDiversityLoss,
    SoftIoULoss,
):
    register(MODELS, loss)
