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
    gO    = softmax(c)                                       (7)  global gates
    output = g_net output_net + sum_l gO^l o^l               (8)

Here AD = S is the number of maps given, AW = K = ``heads``, Y the number of classes, and the
network's own prediction output_net is global average pooling and a linear layer.

Pool first, then project. Eqs. 2 and 5 are linear in Z, so the average under the mask can be taken
before the convolution:

    sum_x H_k(x) sum_d W_k(d) Z(x - d) = sum_d W_k(d) P_k(d),   P_k(d) = sum_x H_k(x) Z(x - d)

P needs nine shifted copies of each mask instead of a K Y-channel map at every position: on
CIFAR-100 with WRN-28-10 1,053 M multiply-adds become 25 M. It is exact; `WARN.forward_paper` keeps
the printed order for comparison.

Deviations (official code: https://github.com/prlz77/attend-and-rectify, modules/attention.py):
  * The convolutions are 3x3 without bias, Kaiming-normal: official code; the paper gives no size.
  * Eq. 8 mixes log-probabilities and is trained by the negative log-likelihood: official code. The
    exponentials of such scores sum to less than one. ``mix='prob'`` mixes the probabilities.
  * ``gate_norm`` puts a BatchNorm before the tanh of Eq. 6: official code, not in the paper, off.
  * Sigmoid masks (the paper's ablation) are averaged over positions where Eq. 3 prints a sum: the
    text says "spatially averaged", and a sum would grow with the resolution.
  * The diversity term is the mean squared off-diagonal entry of the masks' Gram matrix, as the
    text means it ("to prevent the attention heads at the same depth to collapse into the same
    region"). The official code first averages the masks over 2x2 cells, which shrinks the term to
    3e-6 even for masks that coincide on one position.
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
    'AttentionModules',
    'Convolution',
    'mask_diversity',
    'masked_patches',
]


class Convolution(nn.Module):
    """The convolution (W * Z)(x) = sum_d W(d) Z(x - d), d x d kernels without bias.

    Its weights (out_channels, d d, C) lie in memory as the products below read them. They are those
    of torch's ``Conv2d``, which sums W(d) Z(x + d), flipped and with the channels last.

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

    def few(self, Z: Tensor) -> Tensor:
        """`forward` for few maps K to come out, which leave most of a vector register empty.

        Every position is multiplied as in one matrix product, then the d d small results are moved
        onto each other.
        """
        N, C, H, W = Z.shape
        kernels = self.weight.view(-1, C).expand(N, -1, -1)  # (N, K d d, C)
        products = torch.bmm(kernels, Z.flatten(2))  # (N, K d d, H W)
        return F.fold(products, (H, W), self.size, padding=self.size // 2)


def masked_patches(H: Tensor, Z: Tensor, size: int) -> Tensor:
    """P_k(d) = sum_x H_k(x) Z(x - d) for every offset d of a ``size`` x ``size`` kernel.

    Args:
        H: masks (N, K, H, W).
        Z: features (N, C, H, W), taken as zero outside the map.
        size: odd side of the kernel.

    Returns:
        (N, K, size * size * C), ordered as the weights of a `Convolution` are.
    """
    # P_k(d) = sum_y H_k(y + d) Z(y): it is the K small masks that move
    moved = F.unfold(H, size, padding=size // 2)  # (N, K d d, H W)
    return torch.bmm(moved, Z.flatten(2).transpose(1, 2)).view(*H.shape[:2], -1)


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


class AttentionModule(nn.Module):
    """Attention heads, output heads and head gates of one level: Eqs. 1 to 5.

    Args:
        in_channels: C, channels of the level.
        num_classes: Y.
        heads: K, the paper's attention width AW.
        kernel_size: odd side of the three convolutions.
        mask: 'softmax' | 'sigmoid'.
        gates: with head gates (Eqs. 4, 5), or the plain mean over heads.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        heads: int,
        kernel_size: int,
        mask: str,
        gates: bool,
    ) -> None:
        super().__init__()
        self.num_classes, self.heads, self.mask, self.gates = num_classes, heads, mask, gates

        self.W_H = Convolution(in_channels, heads, kernel_size)
        self.W_O = Convolution(in_channels, num_classes * heads, kernel_size)  # class by class
        self.W_g = Convolution(in_channels, heads, kernel_size) if gates else None

    def masks(self, Z: Tensor) -> Tensor:
        """Masks (N, K, H, W) of the map Z (N, C, H, W); softmax masks sum to one over positions."""
        scores = self.W_H.few(Z)
        if self.mask == 'softmax':
            return scores.flatten(2).softmax(dim=2).view_as(scores)  # Eq. 1
        return scores.sigmoid()  # below Eq. 1

    def weights(self, H: Tensor) -> Tensor:
        """The masks as they enter the sums over positions."""
        if self.mask == 'softmax':
            return H
        return H / (H.shape[2] * H.shape[3])  # not in the paper: an average for a sum, see above

    def forward(self, Z: Tensor, H: Tensor) -> Tensor:
        """What the heads see: gH_k P_k (N, K d d C), of the map Z (N, C, H, W) and its masks H."""
        P = masked_patches(self.weights(H), Z, self.W_O.size)  # (N, K, d d C)
        if self.W_g is None:
            return P.flatten(1) / self.heads
        gH = (P * self.W_g.weight.flatten(1)).sum(dim=2).tanh().softmax(dim=1)  # Eq. 5
        return (gH.unsqueeze(2) * P).flatten(1)

    def hypothesis(self, seen: Tensor) -> Tensor:
        """The level's hypothesis o (N, Y), of what the heads see.

        The gates being in that, one product projects and sums over the heads.
        """
        return F.linear(seen, self.W_O.weight.view(self.num_classes, -1))  # Eqs. 2, 3, 4

    def hypothesis_paper(self, Z: Tensor, H: Tensor) -> Tensor:
        """The hypothesis (N, Y) in the paper's order: project at every position, then average."""
        H = self.weights(H)
        O = self.W_O(Z).unflatten(1, (-1, self.heads))  # Eq. 2: (N, Y, K, H, W)  # noqa: E741
        o = (H.unsqueeze(1) * O).sum(dim=(3, 4))  # Eq. 3: (N, Y, K)
        if self.W_g is None:
            return o.mean(dim=2)
        gH = (self.W_g(Z) * H).sum(dim=(2, 3)).tanh().softmax(dim=1)  # Eq. 5
        return (gH.unsqueeze(1) * o).sum(dim=2)  # Eq. 4


class AttentionModules(nn.ModuleList):
    """The modules of all levels."""

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        """The hypotheses (N, Y) of all levels, of their maps and masks."""
        seen = [m(Z, H) for m, Z, H in zip(self, levels, masks, strict=True)]
        # W_O last: reading it throws maps and masks out of the cache
        return [m.hypothesis(P) for m, P in zip(self, seen, strict=True)]

    def forward_paper(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        """`forward` in the paper's order of operations."""
        return [m.hypothesis_paper(Z, H) for m, Z, H in zip(self, levels, masks, strict=True)]


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
        gates: head gates and global gates; without them all heads and all outputs are averaged.
        gate_norm: BatchNorm before the tanh of Eq. 6 (official code).
        mix: what Eq. 8 mixes: 'log_prob' (official code) | 'prob'. Scores are logarithms in both.
        base_grad: factor on the gradient from modules and gates to the base network.
        diversity: weight of the term that keeps heads apart; 0 turns it off.

    Raises:
        ValueError: for a value outside the documented ones.
    """

    default_taps = 3

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
    ) -> None:
        super().__init__(in_channels, num_classes)
        if heads < 1:
            raise ValueError(f'WARN: heads={heads}: needs at least 1')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'WARN: kernel_size={kernel_size}: must be odd, as 3 or 1')
        if mask not in ('softmax', 'sigmoid'):
            raise ValueError(f"WARN: mask={mask!r}: must be 'softmax' or 'sigmoid'")
        if mix not in ('log_prob', 'prob'):
            raise ValueError(f"WARN: mix={mix!r}: must be 'log_prob' or 'prob'")
        if gate_norm and not gates:
            raise ValueError('WARN: gate_norm=True normalises the gates, gates=False removes them')
        if base_grad < 0 or diversity < 0:
            raise ValueError(
                f'WARN: base_grad={base_grad}, diversity={diversity}: must not be negative'
            )
        self.mix, self.base_grad, self.diversity = mix, base_grad, diversity

        self.attention_modules = AttentionModules(
            AttentionModule(C, num_classes, heads, kernel_size, mask, gates)
            for C in self.in_channels
        )
        self.W_G = nn.Linear(self.in_channels[-1], self.taps + 1, bias=False) if gates else None
        if self.W_G is not None:
            nn.init.kaiming_normal_(self.W_G.weight)  # official code
        self.gate_norm = BatchNorm(self.taps + 1) if gate_norm else nn.Identity()
        self.classifier = nn.Linear(self.in_channels[-1], num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Scores (N, Y): logarithms, for the negative log-likelihood."""
        self.check_features(features)
        levels = self._levels(features)
        return self._output(features, self.attention_modules(levels, self._masks(levels)))

    def forward_paper(self, features: Sequence[Tensor]) -> Tensor:
        """`forward` with every attention module in the paper's order of operations."""
        self.check_features(features)
        levels = self._levels(features)
        hypotheses = self.attention_modules.forward_paper(levels, self._masks(levels))
        return self._output(features, hypotheses)

    def attention(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The masks H of Eq. 1: (N, K, H_s, W_s) for each level."""
        self.check_features(features)
        return self._masks(features)

    def loss(self, features: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """``nll`` of the scores and, if its weight is not 0, ``diversity`` of the masks."""
        self.check_features(features)
        levels = self._levels(features)
        masks = self._masks(levels)
        scores = self._output(features, self.attention_modules(levels, masks))
        terms = {'nll': negative_log_likelihood(scores, target)}
        if self.diversity > 0:
            overlap = torch.stack([mask_diversity(H) for H in masks]).mean()
            terms['diversity'] = self.diversity * overlap
        return terms

    def global_gates(self, z: Tensor) -> Tensor:
        """GO and, last, g_net: (N, S + 1), from the pooled last map z (N, C)."""
        if self.W_G is None:
            return z.new_full((z.shape[0], self.taps + 1), 1 / (self.taps + 1))
        c = self.gate_norm(self.W_G(scale_gradient(z, self.base_grad))).tanh()  # Eq. 6
        return c.softmax(dim=1)  # Eq. 7

    def _levels(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [scale_gradient(Z, self.base_grad) for Z in features]

    def _masks(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [m.masks(Z) for m, Z in zip(self.attention_modules, levels, strict=True)]

    def _output(self, features: Sequence[Tensor], hypotheses: Sequence[Tensor]) -> Tensor:
        z = features[-1].mean(dim=(2, 3))
        outputs = torch.stack([*hypotheses, self.classifier(z)], dim=1)  # (N, S + 1, Y)
        log_p = outputs.log_softmax(dim=2)
        g = self.global_gates(z)
        if self.mix == 'log_prob':
            return (g.unsqueeze(2) * log_p).sum(dim=1)  # Eq. 8, of log-probabilities
        return (g.log().unsqueeze(2) + log_p).logsumexp(dim=1)  # Eq. 8, of probabilities
