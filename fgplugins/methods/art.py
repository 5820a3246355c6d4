"""CRA-CNN: a network proposes where to look, a second one learns from what it proposed.

Liu, *Contrastively-reinforced Attention Convolutional Neural Network for Fine-grained Image
Recognition*, BMVC 2020. The classification stream N_cls is a network with its classifier; in
training a linear layer on its embedding, the pooled feature, also proposes Gamma. The attention
view samples the image at

    (x^a, y^a) = [g3 cos g4, -g3 sin g4, g1; g3 sin g4, g3 cos g4, g2] (x, y, 1)      (3, 4)

for (x, y) over [-1, 1]^2, the redundancy view is what the attention view does not cover:

    G^r = G - (G and G^a)                                                             (5)
    Gamma_res = [a_p tanh g1, a_p tanh g2, a_s tanh g3, g4]                           (6)

and Gamma_res is used for Gamma. With E its expectation, T its thresholds and d = Gamma_res - E:

    L_res = (sum_i max(0, |d_i| - t_i) / (|d_i| - t_i + eps) d_i^2)^(1/2)             (7)

The second stream N_ar, of the same architecture, classifies the attention a and gives a feature f
of each view. Over pairs (m, n) of images:

    L_cntr = max(0, d(f(r_m), f(r_n)) - d(f(r_m), f(a_m)) + margin)
           + max(0, d(f(r_n), f(r_m)) - d(f(r_n), f(a_n)) + margin)                   (8)
    L = L_cls1 + L_cls2 + L_res + L_cntr                                              (9)

L_cls1 is `ART.loss`, the rest `AttentionRegularization`. Tested and deployed, it is the network
with its classifier: N_ar and the layer that proposes Gamma exist in training only.

What is computed differently, exactly: whether a pixel is covered is asked of the inverse map, once
a pixel; and both views go through N_ar as one batch.

Deviations and decisions where the paper is silent:
  * Eq. 7 as printed is 0/0 and has no gradient inside all thresholds; there it is 0 here, and the
    fraction, a step of width eps, is taken as constant in the gradient.
  * f is the output of N_ar's classifier (the paper's example), scaled to length 1
    (``normalize=True``, as the official code does); else the margin has no scale.
  * Pairs are images 0 and 1, 2 and 3, ...; of an odd batch the last goes with the first, and a
    batch of one has no pair and a contrastive term of 0. Batches are shuffled.
  * The redundancy view is the resized image with the attended quadrangle set to zero, and no
    gradient reaches Gamma through it (official code).
  * g3 may turn negative: the view is then turned by 180 degrees.
  * The proposing layer starts at zero weights and the bias that gives nearly E for every image; at
    E itself tanh is saturated.
  * ``transform='stn'`` is the reference of section 4.2: six free entries of the matrix in Eq. 2,
    starting at the identity, without Eqs. 6 and 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods.base import Network, Regularizer
from fgplugins.methods.gap import GAP
from fgplugins.methods.registry import register_method

__all__ = [
    'ART',
    'AttentionRegularization',
    'RestrictionSchedule',
    'attention_matrix',
    'attention_restriction',
    'contrastive_reinforcement',
    'covered',
    'restrict',
]


def restrict(gamma: Tensor, alpha_p: float = 1.0, alpha_s: float = 0.5) -> Tensor:
    """Gamma_res (N, 4) of Gamma (N, 4): x, y, scale, angle (Eq. 6)."""
    x, y, scale, angle = gamma.unbind(dim=1)
    return torch.stack(
        [alpha_p * x.tanh(), alpha_p * y.tanh(), alpha_s * scale.tanh(), angle], dim=1
    )  # Eq. 6


def attention_matrix(gamma: Tensor) -> Tensor:
    """The affine matrices (N, 2, 3) of attention parameters (N, 4) (Eq. 4)."""
    g1, g2, g3, g4 = gamma.unbind(dim=1)
    c, s = g3 * g4.cos(), g3 * g4.sin()
    return torch.stack([c, -s, g1, s, c, g2], dim=1).view(-1, 2, 3)  # Eq. 4


def covered(matrix: Tensor, height: int, width: int) -> Tensor:
    """Which pixels of a (height, width) image the square [-1, 1]^2 reaches: booleans (N, H, W).

    A pixel is covered if the inverse of the affine ``matrix`` (N, 2, 3) brings it into the square.
    """
    x = torch.linspace(-1, 1, width, device=matrix.device, dtype=matrix.dtype)
    y = torch.linspace(-1, 1, height, device=matrix.device, dtype=matrix.dtype)
    a, b, tx, c, d, ty = matrix.flatten(1)[:, :, None, None].unbind(dim=1)  # each (N, 1, 1)
    dx, dy = x - tx, y[:, None] - ty
    size = (a * d - b * c).abs()
    # the adjugate, so that a matrix without inverse covers nothing instead of dividing by zero
    inside = ((d * dx - b * dy).abs() <= size) & ((a * dy - c * dx).abs() <= size)
    return inside & (size > 0)


def attention_restriction(
    gamma_res: Tensor,
    expectation: Sequence[float] = (0.0, 0.0, 0.5, 0.0),
    thresholds: Sequence[float] = (0.4, 0.4, 0.4, math.pi),
    eps: float = 1e-6,
) -> Tensor:
    """L_res (N,) of restricted parameters (N, 4) (Eq. 7)."""
    d = gamma_res - gamma_res.new_tensor(list(expectation))
    over = (d.abs() - gamma_res.new_tensor(list(thresholds))).relu()
    step = (over / (over + eps)).detach()
    return torch.linalg.vector_norm(step.sqrt() * d, dim=1)  # Eq. 7


def contrastive_reinforcement(
    attention: Tensor, redundancy: Tensor, margin: float = 0.7, normalize: bool = True
) -> Tensor:
    """L_cntr of the features (N, D) of both views: the mean over the batch's pairs (Eq. 8).

    A batch of one image has no pair: 0.
    """
    attention, redundancy = (
        f.to(torch.promote_types(f.dtype, torch.float32)) for f in (attention, redundancy)
    )
    if normalize:
        attention, redundancy = F.normalize(attention, dim=1), F.normalize(redundancy, dim=1)
    N = len(attention)
    if N == 1:
        return 0 * (attention.sum() + redundancy.sum())
    m = torch.arange(0, N, 2, device=attention.device)
    n = (m + 1) % N
    between = torch.linalg.vector_norm(redundancy[m] - redundancy[n], dim=1)
    within = torch.linalg.vector_norm(redundancy - attention, dim=1)
    loss = (between - within[m] + margin).relu() + (between - within[n] + margin).relu()  # Eq. 8
    return loss.mean()


class AttentionRegularization(Regularizer):
    """The layer that proposes Gamma, the views, and the classifier of the second stream.

    Args:
        method: the method, with its hyper-parameters.
        view_size: (height, width) of both views; half the image's if None.
    """

    optional_terms = ('restriction',)

    def __init__(self, method: ART, view_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.alpha = method.alpha_p, method.alpha_s
        self.expectation, self.thresholds = method.expectation, method.thresholds
        self.margin, self.normalize = method.margin, method.normalize
        self.transform, self.view_size = method.transform, view_size
        self.has_embedding = method.embedding_channels is not None
        self.proposal = nn.Linear(method.head_channels, 4 if self.transform == 'attention' else 6)
        self.head_drop = nn.Dropout(method.head_drop.p)
        self.classifier = nn.Linear(method.head_channels, method.num_classes)
        nn.init.zeros_(self.proposal.weight)
        with torch.no_grad():
            self.proposal.bias.copy_(torch.tensor(self._start()))

    def forward(
        self,
        images: Tensor,
        features: Sequence[Tensor],
        target: Tensor,
        second: Network,
        embedding: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``ce_attention`` (L_cls2), ``contrastive`` and, when it is on, ``restriction``."""
        with torch.autocast(images.device.type, enabled=False):
            matrix, gamma_res = self.propose(features, embedding)
            both = torch.cat(self.views(images, matrix))
        given = second(both)
        z = given[1] if self.has_embedding else given[-1].mean(dim=(2, 3))
        f = self.classifier(self.head_drop(z))
        attention, redundancy = f.chunk(2)
        terms = {  # of Eq. 9
            'ce_attention': F.cross_entropy(attention, target),
            'contrastive': contrastive_reinforcement(
                attention, redundancy, self.margin, self.normalize
            ),
        }
        if gamma_res is not None and 'restriction' not in self.left_out:
            restriction = attention_restriction(gamma_res, self.expectation, self.thresholds)
            terms['restriction'] = restriction.mean()
        return terms

    def propose(
        self, features: Sequence[Tensor], embedding: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The affine matrices (N, 2, 3), and Gamma_res (N, 4) where there is one."""
        z = embedding if self.has_embedding else features[-1].mean(dim=(2, 3))
        gamma = self.proposal(z.to(self.proposal.weight.dtype))  # Eq. 3
        gamma = gamma.to(torch.promote_types(gamma.dtype, torch.float32))
        if self.transform == 'stn':
            return gamma.view(-1, 2, 3), None
        gamma_res = restrict(gamma, *self.alpha)
        return attention_matrix(gamma_res), gamma_res

    def views(self, images: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """The attention and the redundancy of images (N, C, H, W), each (N, C, h, w)."""
        N, C, H, W = images.shape
        h, w = self.view_size or ((H + 1) // 2, (W + 1) // 2)
        full = images.to(matrix.dtype)
        grid = F.affine_grid(matrix, [N, C, h, w], align_corners=True)
        attention = F.grid_sample(full, grid, mode='bilinear', align_corners=True)
        resized = F.interpolate(full, (h, w), mode='bilinear', align_corners=True)
        redundancy = resized.masked_fill(covered(matrix.detach(), h, w)[:, None], 0)  # Eq. 5
        return attention.to(images.dtype), redundancy.to(images.dtype)

    def show(
        self, images: Tensor, features: Sequence[Tensor], embedding: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The two views."""
        matrix, _ = self.propose(features, embedding)
        return dict(zip(('attention', 'redundancy'), self.views(images, matrix), strict=True))

    def _start(self) -> list[float]:
        """The bias that proposes (nearly) the expectation, or the identity."""
        if self.transform == 'stn':
            return [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        x, y, scale, angle = self.expectation
        alpha_p, alpha_s = self.alpha
        shares = [e / a if a else 0.0 for e, a in ((x, alpha_p), (y, alpha_p), (scale, alpha_s))]
        return [*(math.atanh(max(-0.9, min(0.9, share))) for share in shares), angle]


@dataclass(frozen=True)
class RestrictionSchedule:
    """When L_res is on: for ``begin`` epochs; then it is off and on, ``period`` each (section 4.1).

    Args:
        begin: how many epochs it is on at first.
        period: how many epochs each state lasts.

    Raises:
        ValueError: for a negative ``begin``, or a ``period`` below one epoch.
    """

    begin: int = 50
    period: int = 45

    def __post_init__(self) -> None:
        if self.begin < 0 or self.period < 1:
            raise ValueError(
                f'restriction schedule: begin={self.begin}, period={self.period}: begin must be at '
                'least 0, period at least 1'
            )

    def is_on(self, epoch: int) -> bool:
        """Whether L_res is on in an epoch, the first of which is 0."""
        past = epoch - self.begin
        return past < 0 or past // self.period % 2 == 1

    def set_epoch(self, regularizer: Regularizer | None, epoch: int, whose: str) -> None:
        """Bring a regularizer to its state in an epoch.

        Args:
            regularizer: of the method that is trained.
            epoch: the first is 0.
            whose: what is trained, for the message.

        Raises:
            ValueError: if it has no such term.
        """
        if 'restriction' not in getattr(regularizer, 'optional_terms', ()):
            raise ValueError(
                f'restriction schedule: {whose} has no attention restriction; it is for art'
            )
        regularizer.leave_out(*([] if self.is_on(epoch) else ['restriction']))


@register_method('art')
class ART(GAP):
    """The network itself, trained beside a second look at what it attends to.

    Args:
        in_channels: channels of the maps; the last one is read.
        num_classes: Y.
        alpha_p: range of the view's centre, of the image's half size (Eq. 6).
        alpha_s: range of the view's scale.
        expectation: E of Eq. 7: x, y, scale, angle.
        thresholds: T of Eq. 7.
        margin: of Eq. 8.
        normalize: compare features of length 1 in Eq. 8.
        view_size: of both views, (height, width) or one number; half the image's if None, or the
            size that a backbone of fixed size takes.
        transform: 'attention' (Eq. 4) | 'stn' (six free parameters, the paper's reference).
        embedding_channels: see `GAP`.

    Raises:
        ValueError: for a value outside the documented ones.
    """

    reads_embedding = True

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        alpha_p: float = 1.0,
        alpha_s: float = 0.5,
        expectation: Sequence[float] = (0.0, 0.0, 0.5, 0.0),
        thresholds: Sequence[float] = (0.4, 0.4, 0.4, math.pi),
        margin: float = 0.7,
        normalize: bool = True,
        view_size: int | Sequence[int] | None = None,
        transform: str = 'attention',
        *,
        embedding_channels: int | None = None,
    ) -> None:
        super().__init__(in_channels, num_classes, embedding_channels)
        if transform not in ('attention', 'stn'):
            raise ValueError(f"ART: transform={transform!r}: must be 'attention' or 'stn'")
        for name, value in (('alpha_p', alpha_p), ('alpha_s', alpha_s)):
            if not 0 <= value <= 1:
                raise ValueError(f'ART: {name}={value}: must lie between 0 and 1')
        for name, values in (('expectation', expectation), ('thresholds', thresholds)):
            if len(values) != 4:
                raise ValueError(f'ART: {name}={list(values)}: give x, y, scale and angle')
        if isinstance(view_size, int):
            view_size = view_size, view_size
        if view_size is not None and (len(view_size) != 2 or min(view_size) < 1):
            raise ValueError(f'ART: view_size={view_size}: give (height, width) or one number')
        self.alpha_p, self.alpha_s, self.margin = alpha_p, alpha_s, margin
        self.expectation, self.thresholds = tuple(expectation), tuple(thresholds)
        self.normalize, self.transform = normalize, transform
        self.view_size = None if view_size is None else tuple(view_size)

    def regularizer(self, view_size: tuple[int, int] | None = None) -> AttentionRegularization:
        """The training-only part."""
        return AttentionRegularization(self, self.view_size or view_size)
