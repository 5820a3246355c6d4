"""WARN: attend to lower-level maps, rectify the network's prediction with what is found there.

Rodriguez, Gonfaus, Cucurull, Roca and Gonzalez, *Attend and Rectify: a gated attention mechanism
for fine-grained recovery*, ECCV 2018, https://arxiv.org/abs/1807.07320. Each of the last AD levels
l gets an attention module of AW heads k; its features are Z = Z^l, * is a convolution.

    H     = spatial_softmax(W_H * Z)                         (1)  attention masks
    O_k   = W_O_k * Z                                        (2)  class scores at every position
    o_k   = sum_x H_k(x) O_k(x)                              (3)  ... averaged under the mask
    o     = sum_k gH_k o_k                                   (4)  the module's hypothesis
    gH    = softmax(tanh(sum_x (W_g * Z)(x) H(x)))           (5)  head gates
    c     = tanh(W_G Z^L)                                    (6)  from the last map, pooled
    gO    = softmax(c)                                       (7)  global gates, 'softmax'
    output = g_net output_net + sum_l gO^l o^l               (8)

Here AD = S is the number of maps given, AW = K = ``heads``, Y the number of classes. output_net is
the network's own prediction. The pooled Z^L of Eq. 6 is the vector that it is made of, in most
networks the mean of the last map.

What is computed differently, exactly: features are pooled under the masks first and projected then
(`fgplugins.methods.fast.warn`). That takes nine shifted copies of each mask instead of a map of K Y
channels: on CIFAR-100 with WRN-28-10 1,053 M multiply-adds become 25 M. `WARN.forward_paper` keeps
the printed order.

Deviations (official code: https://github.com/prlz77/attend-and-rectify, modules/attention.py):
  * The convolutions are 3x3 without bias, Kaiming-normal: official code; the paper gives no size.
  * Eq. 8 mixes log-probabilities and is trained by the negative log-likelihood: official code. The
    exponentials of such scores sum to less than one. ``mix='prob'`` mixes the probabilities.
  * ``gate_norm`` puts a BatchNorm before the tanh of Eq. 6: official code, not in the paper, off.
  * ``global_gates='sigmoid'`` is that of the official CIFAR-100 script: gO = sigmoid(c) over the
    sum of all of them. The 1e-6 that the official code adds to the sum is left out.
  * ``global_gates='linear'`` is the ablation "a simpler linear projection" of section 4.3, of which
    the paper says no more. It is read as gO = W_G Z^L, without tanh and softmax. Such weights have
    any size and sign, and the likelihood of their mixture no bound; so log-softmax brings the
    mixture of Eq. 8 to log-probabilities, which gives log_softmax(sum_l gO^l o^l).
  * ``global_gates='mean'`` is the other one, "averaging the output vectors": gO = 1 / (S + 1).
  * ``output_init='zero'`` and ``mask_init='zero'`` are not in the paper, and off: modules that
    start silent, so that a trained network starts with its own prediction, and masks that start
    uniform.
  * Sigmoid masks (the paper's ablation) are averaged over positions where Eq. 3 prints a sum: the
    text says "spatially averaged", and a sum would grow with the resolution.
  * Without head gates the hypotheses of the heads are averaged; the official code averages their
    log-probabilities.
  * The diversity term is the mean squared off-diagonal entry of the masks' Gram matrix, as the
    text means it ("to prevent the attention heads at the same depth to collapse into the same
    region"). The official code first averages the masks over 2x2 cells, which shrinks the term to
    3e-6 even for masks that coincide on one position. With its weight of 1e-3 either form is
    inert: on cluttered digits its gradient on W_H is at most 3e-3 of the likelihood's, and no heads
    collapse without it. It acts from a weight of about 1 on (docs/methods.md).
  * ``base_grad`` scales the gradient that modules and gates send into the base network: 0 is the
    ablation of section 4.3; output_net always gets the whole gradient. The same section's
    "gradients are multiplied by 0.1 in the base model" is, in 4.4, a tenth of the learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods.base import Method
from fgplugins.methods.fast.warn import convolve_to_few, masked_patches
from fgplugins.methods.layers import (
    BatchNorm,
    negative_log_likelihood,
    scale_gradient,
    without_float16,
)
from fgplugins.methods.registry import register_method

__all__ = [
    'WARN',
    'AttentionModule',
    'Convolution',
    'mask_diversity',
]


class Convolution(nn.Module):
    """The convolution (W * Z)(x) = sum_d W(d) Z(x - d), d x d kernels without bias.

    Its weights (out_channels, d d, C) are those of torch's ``Conv2d``, which sums W(d) Z(x + d),
    flipped and with the channels last, as the products of the fast form read them.

    Args:
        in_channels: C.
        out_channels: how many maps come out.
        size: odd side of the kernels.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(out_channels, size * size, in_channels))
        nn.init.kaiming_normal_(self.weight)

    def forward(self, Z: Tensor) -> Tensor:
        """Position by position: (N, out_channels, H, W) of features Z (N, C, H, W)."""
        kernels = self.weight.unflatten(1, (self.size, self.size)).permute(0, 3, 1, 2)
        return F.conv2d(Z, kernels.flip(2, 3), padding=self.size // 2)


class AttentionModule(nn.Module):
    """Attention heads, output heads and head gates of one level: Eqs. 1 to 5.

    Args:
        in_channels: C, channels of the level.
        num_classes: Y.
        heads: K, the paper's attention width AW.
        kernel_size: odd side of the three convolutions.
        mask: 'softmax' | 'sigmoid'.
        gates: with head gates (Eqs. 4, 5), or the plain mean over heads.
        output_init: of W_O: 'kaiming' | 'zero'.
        mask_init: of W_H: 'kaiming' | 'zero'.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        heads: int,
        kernel_size: int,
        mask: str,
        gates: bool,
        output_init: str = 'kaiming',
        mask_init: str = 'kaiming',
    ) -> None:
        super().__init__()
        self.num_classes, self.heads, self.mask, self.gates = num_classes, heads, mask, gates

        self.W_H = Convolution(in_channels, heads, kernel_size)
        self.W_O = Convolution(in_channels, num_classes * heads, kernel_size)  # class by class
        self.W_g = Convolution(in_channels, heads, kernel_size) if gates else None
        for layer, start in ((self.W_O, output_init), (self.W_H, mask_init)):
            if start == 'zero':
                nn.init.zeros_(layer.weight)

    def forward_paper(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """The hypothesis o (N, Y) and the masks H (N, K, H, W) of a map Z (N, C, H, W)."""
        H = self.masks(Z)
        h = self.averaging(H)
        O = self.W_O(Z).unflatten(1, (-1, self.heads))  # Eq. 2: (N, Y, K, H, W)  # noqa: E741
        o = (h.unsqueeze(1) * O).sum(dim=(3, 4))  # Eq. 3: (N, Y, K)
        if self.W_g is None:
            return o.mean(dim=2), H
        gH = (self.W_g(Z) * h).sum(dim=(2, 3)).tanh().softmax(dim=1)  # Eq. 5
        return (gH.unsqueeze(1) * o).sum(dim=2), H  # Eq. 4

    def forward(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """`forward_paper`, pooled under the masks first and projected then."""
        H = self.masks(Z)
        P = masked_patches(self.averaging(H), Z, self.W_O.size)  # (N, K, d d C)
        if self.W_g is None:
            gated = P.flatten(1) / self.heads
        else:
            gH = (P * self.W_g.weight.flatten(1)).sum(dim=2).tanh().softmax(dim=1)  # Eq. 5
            gated = (gH.unsqueeze(2) * P).flatten(1)
        # the gates are in what is projected, so that one product sums over the heads
        return F.linear(gated, self.W_O.weight.view(self.num_classes, -1)), H  # Eqs. 2, 3, 4

    def masks(self, Z: Tensor) -> Tensor:
        """Masks (N, K, H, W) of the map Z (N, C, H, W); softmax masks sum to one over positions."""
        scores = convolve_to_few(Z, self.W_H.weight, self.W_H.size)  # W_H * Z
        if self.mask == 'softmax':
            return scores.flatten(2).softmax(dim=2).view_as(scores)  # Eq. 1
        return scores.sigmoid()  # below Eq. 1

    def averaging(self, H: Tensor) -> Tensor:
        """The masks as they enter the sums over positions."""
        if self.mask == 'softmax':
            return H
        return H / (H.shape[2] * H.shape[3])  # not in the paper: an average for a sum, see above


@without_float16
def mask_diversity(H: Tensor) -> Tensor:
    """How much the K masks of a level overlap: the mean squared off-diagonal of their Gram matrix.

    Args:
        H: masks (N, K, H, W); each is brought to sum to one, as softmax masks already do.

    Returns:
        Scalar; 0 for disjoint masks, (K - 1) / K for masks that coincide on one position.
    """
    h = H.flatten(2)
    h = h / h.sum(dim=2, keepdim=True).clamp_min(torch.finfo(h.dtype).tiny)
    gram = h @ h.transpose(1, 2)  # (N, K, K)
    off_diagonal = gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))
    return off_diagonal.square().mean()


@register_method('warn')
class WARN(Method):
    """Gated attention modules on every map given, rectifying the network's own prediction.

    Args:
        in_channels: channels of the levels that get a module, shallow to deep; their number is
            the paper's attention depth AD.
        num_classes: Y.
        heads: K, the paper's attention width AW (section 3.2).
        kernel_size: odd side of the modules' convolutions; the official code has 3.
        mask: 'softmax' (Eq. 1) | 'sigmoid' (the ablation of section 4.2).
        gates: the short form of the next two: head gates and 'softmax', or no head gates and
            'mean'.
        gate_norm: BatchNorm before the tanh of Eq. 6 (official code).
        mix: what Eq. 8 mixes: 'log_prob' (official code) | 'prob'. Scores are logarithms in both.
        base_grad: factor on the gradient from modules and gates to the base network.
        diversity: weight of the term that keeps heads apart: official 1e-3, which is too small to
            act; 1 to 10 acts; 0 turns it off.
        head_gates: with head gates (Eqs. 4, 5), or the mean over heads; as ``gates`` if None.
        global_gates: what gO is: 'softmax' (Eq. 7) | 'sigmoid' (official CIFAR-100 script) |
            'linear' | 'mean' (both section 4.3); as ``gates`` if None.
        output_init: how the class scores W_O start: 'kaiming' | 'zero'. With 'zero' the network's
            own prediction is that of a fresh model, except under 'linear' gates, whose sign is
            free.
        mask_init: how the masks W_H start: 'kaiming' | 'zero', which is uniform masks.
        embedding_channels: D, where the network's embedding is given; else it is the mean of the
            last map.

    Raises:
        ValueError: for a value outside the documented ones.
    """

    default_taps = 3
    reads_embedding = True
    embedding_classifier = 'classifier'

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        heads: int = 4,
        kernel_size: int = 3,
        mask: str = 'softmax',
        gates: bool = True,
        gate_norm: bool = False,
        mix: str = 'log_prob',
        base_grad: float = 1.0,
        diversity: float = 1e-3,
        head_gates: bool | None = None,
        global_gates: str | None = None,
        output_init: str = 'kaiming',
        mask_init: str = 'kaiming',
        *,
        embedding_channels: int | None = None,
    ) -> None:
        super().__init__(in_channels, num_classes, embedding_channels)
        if heads < 1:
            raise ValueError(f'WARN: heads={heads}: needs at least 1')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'WARN: kernel_size={kernel_size}: must be odd, as 3 or 1')
        head_gates = gates if head_gates is None else head_gates
        if global_gates is None:
            global_gates = 'softmax' if gates else 'mean'
        for name, value, known in (
            ('mask', mask, ('softmax', 'sigmoid')),
            ('mix', mix, ('log_prob', 'prob')),
            ('global_gates', global_gates, ('softmax', 'sigmoid', 'linear', 'mean')),
            ('output_init', output_init, ('kaiming', 'zero')),
            ('mask_init', mask_init, ('kaiming', 'zero')),
        ):
            if value not in known:
                raise ValueError(f'WARN: {name}={value!r}: must be one of {", ".join(known)}')
        if gate_norm and global_gates in ('linear', 'mean'):
            raise ValueError(
                'WARN: gate_norm=True goes before the tanh of Eq. 6, which '
                f"global_gates={global_gates!r} has not: use 'softmax' or 'sigmoid'"
            )
        if mix == 'prob' and global_gates == 'linear':
            raise ValueError(
                "WARN: mix='prob' takes weights that are not negative, global_gates='linear' gives "
                "others: use mix='log_prob'"
            )
        if output_init == mask_init == 'zero' and heads > 1 and not head_gates:
            raise ValueError(
                f"WARN: output_init='zero' and mask_init='zero': {heads} heads without head gates "
                'would stay alike for ever: use head_gates=True, heads=1, or one of the two alone'
            )
        if base_grad < 0 or diversity < 0:
            raise ValueError(
                f'WARN: base_grad={base_grad}, diversity={diversity}: must not be negative'
            )
        self.mix, self.base_grad, self.diversity = mix, base_grad, diversity
        self.gating = global_gates

        self.attention_modules = nn.ModuleList(
            AttentionModule(
                C, num_classes, heads, kernel_size, mask, head_gates, output_init, mask_init
            )
            for C in self.in_channels
        )
        self.W_G = None
        if global_gates != 'mean':
            self.W_G = nn.Linear(self.head_channels, self.taps + 1, bias=False)
            nn.init.kaiming_normal_(self.W_G.weight)  # official code
        self.gate_norm = BatchNorm(self.taps + 1) if gate_norm else nn.Identity()
        self.classifier = nn.Linear(self.head_channels, num_classes)

    def forward_paper(self, features: Sequence[Tensor], embedding: Tensor | None = None) -> Tensor:
        """Scores (N, Y), with every attention module in the paper's order of operations."""
        self.check_features(features)
        hypotheses, _ = self._attend(features, paper=True)
        return self.output(self.embed(features, embedding), hypotheses)

    def forward(self, features: Sequence[Tensor], embedding: Tensor | None = None) -> Tensor:
        """Scores (N, Y): logarithms, for the negative log-likelihood."""
        self.check_features(features)
        hypotheses, _ = self._attend(features)
        return self.output(self.embed(features, embedding), hypotheses)

    def output(self, z: Tensor, hypotheses: Sequence[Tensor]) -> Tensor:
        """The output (N, Y) of Eq. 8, from the embedding z and the modules' hypotheses (N, Y)."""
        output_net = self.network_scores(z)
        outputs = torch.stack([*hypotheses, output_net], dim=1)  # (N, S + 1, Y)
        log_p = outputs.log_softmax(dim=2)
        gO = self.global_gates(z)
        if self.mix == 'log_prob':
            scores = (gO.unsqueeze(2) * log_p).sum(dim=1)  # Eq. 8, of log-probabilities
            return scores.log_softmax(dim=1) if self.gating == 'linear' else scores
        return (gO.log().unsqueeze(2) + log_p).logsumexp(dim=1)  # Eq. 8, of probabilities

    def global_gates(self, z: Tensor) -> Tensor:
        """The gates gO and, last, g_net: (N, S + 1), from the embedding z (N, D)."""
        if self.W_G is None:
            return z.new_full((z.shape[0], self.taps + 1), 1 / (self.taps + 1))
        c = self.gate_norm(self.W_G(scale_gradient(z, self.base_grad)))
        if self.gating == 'linear':
            return c  # section 4.3
        c = c.tanh()  # Eq. 6
        if self.gating == 'softmax':
            return c.softmax(dim=1)  # Eq. 7
        gO = c.sigmoid()  # official CIFAR-100 script
        return gO / gO.sum(dim=1, keepdim=True)

    def attention(
        self, features: Sequence[Tensor], embedding: Tensor | None = None
    ) -> list[Tensor]:
        """The masks H of Eq. 1: (N, K, H_s, W_s) for each level."""
        self.check_features(features)
        return [m.masks(Z) for m, Z in zip(self.attention_modules, features, strict=True)]

    def loss(
        self, features: Sequence[Tensor], target: Tensor, embedding: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``nll`` of the scores and, if its weight is not 0, ``diversity`` of the masks."""
        self.check_features(features)
        hypotheses, masks = self._attend(features)
        scores = self.output(self.embed(features, embedding), hypotheses)
        terms = {'nll': negative_log_likelihood(scores, target)}
        if self.diversity > 0:
            overlap = torch.stack([mask_diversity(H) for H in masks]).mean()
            terms['diversity'] = self.diversity * overlap
        return terms

    def _attend(
        self, features: Sequence[Tensor], paper: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The hypotheses o and the masks H of all levels."""
        levels = [scale_gradient(Z, self.base_grad) for Z in features]
        modules = [m.forward_paper if paper else m for m in self.attention_modules]
        found = [module(Z) for module, Z in zip(modules, levels, strict=True)]
        return [o for o, _ in found], [H for _, H in found]
