"""Learn to Pay Attention: the classifier sees only local features, weighted by attention.

Jetley, Lord, Lee and Torr, *Learn to Pay Attention*, ICLR 2018, https://arxiv.org/abs/1804.02391.
From each of S levels, local features l_i at n positions are matched with the global feature g of
the whole image, and pooled by how well they match:

    c_i = <u, l_i + g>                                    (2)  compatibility, parameterised ('pc')
    c_i = <l_i, g>                                        (3)  compatibility, dot product ('dp')
    a_i = exp(c_i) / sum_j exp(c_j)                       (1)  attention
    g_a = sum_i a_i l_i                                        what replaces g in the classifier

The g_a of all levels are concatenated before one linear layer ('concat'), or each has its own and
the class probabilities are averaged ('indep'). Where a level is of another width than g, g is
projected to the level's (section 4). The levels are the maps given, the last of them included; g is
made of the last one by two more convolutions with max-pooling and a linear layer (section 4).

Parameterised compatibility under a softmax cannot see g:

    softmax_i <u, l_i + g> = softmax_i (<u, l_i> + <u, g>) = softmax_i <u, l_i>

since <u, g> is the same at every i; a bias of u cancels likewise. In the paper's best models
('pc', 'concat') the global branch therefore has no effect and no gradient: on the attention VGG
4,984,320 parameters, on WRN-40-10 about 8.0 M. It is not built here, and the scores are the same.
With 'dp', or under a sigmoid, g is alive and built. This is also why the paper's appendix A.5 finds
that a query moves the attention under 'dp' and not under 'pc'.

Deviations (official code: https://github.com/saumya-jetley/cd_ICLR18_LearnToPayAttention):
  * ``norm`` puts BatchNorm, ReLU and dropout between g_a and the classifier: official code, not in
    the paper.
  * ``mask='sigmoid'`` (not in this paper's own models; it is in its baseline PAN) averages over
    positions where the softmax sums, so that the scale does not depend on the resolution.
  * The last max-pooling of the global branch takes whatever is left, so that maps of any size give
    one vector; on the paper's 8 x 8 maps it is the official 2 x 2 pooling.
  * The global branch's normalisations (eps 1e-3) and dropouts are the official code's, the paper
    names neither. On ResNet-164 that has a pooling and one convolution in place of the two here;
    under 'pc' and a softmax, which the paper trains there, the branch does not exist.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods.base import Method
from fgplugins.methods.layers import BatchNorm, linear_weight, without_float16
from fgplugins.methods.registry import register_method

__all__ = ['Att2', 'GlobalBranch']

# what is exponentiated needs more digits than float16 has, and may be too large for it
match = without_float16(torch.einsum)


class GlobalBranch(nn.Sequential):
    """The global feature g (N, C) of a map (N, C, H, W).

    Two convolutions, max-pooling, and the fully connected layer whose output is g, with neither
    normalisation nor non-linearity after it (section 4 and official code).

    Args:
        channels: C.
        pools: sides of the max-poolings before the first and the second convolution; 1 for none.
        dropout: before the linear layer.
        conv_dropout: after each convolution.
        **dd: device and dtype.
    """

    def __init__(
        self,
        channels: int,
        pools: tuple[int, int] = (1, 1),
        dropout: float = 0.5,
        conv_dropout: float = 0.4,
        **dd: object,
    ) -> None:
        def block(pool: int) -> list[nn.Module]:
            layer = nn.Conv2d(channels, channels, 3, padding=1, **dd)
            nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')
            nn.init.zeros_(layer.bias)
            return [
                *([nn.MaxPool2d(pool, ceil_mode=True)] if pool > 1 else []),
                layer,
                nn.BatchNorm2d(channels, eps=1e-3, **dd),
                nn.Sequential(nn.ReLU(), nn.Dropout(conv_dropout)),
            ]

        super().__init__(
            *block(pools[0]),
            *block(pools[1]),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels, channels, **dd),
        )


@register_method('att2')
class Att2(Method):
    """Attention-weighted local features of each level instead of the global one.

    Args:
        in_channels: channels of the levels, shallow to deep; one, two or three of them are the
            paper's att, att2 and att3.
        num_classes: Y.
        compat: the compatibility: 'pc' (Eq. 2) | 'dp' (Eq. 3).
        classify: 'concat' (one linear layer over all levels) | 'indep' (one each, probabilities
            averaged).
        mask: 'softmax' (Eq. 1) | 'sigmoid'.
        norm: BatchNorm and ReLU, and ``dropout``, before the classifier (official code).
        dropout: rate, also before the global branch's linear layer; 0.5 in the official code.
        pool_first: how g is made where it is: with a 2 x 2 max-pooling before each convolution of
            the `GlobalBranch`, as in the attention VGG; without, these are at the last level's
            resolution.
        branch_dropout: rate after each convolution of the global branch; 0.4 in the official code.

    Raises:
        ValueError: for a value outside the documented ones.
    """

    default_taps = 2
    questions = ('query',)

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        compat: str = 'pc',
        classify: str = 'concat',
        mask: str = 'softmax',
        norm: bool = True,
        dropout: float = 0.5,
        pool_first: bool = False,
        branch_dropout: float = 0.4,
    ) -> None:
        super().__init__(in_channels, num_classes)
        for name, value, known in (
            ('compat', compat, ('pc', 'dp')),
            ('classify', classify, ('concat', 'indep')),
            ('mask', mask, ('softmax', 'sigmoid')),
        ):
            if value not in known:
                raise ValueError(f'Att2: {name}={value!r}: must be {known[0]!r} or {known[1]!r}')
        for name, rate in (('dropout', dropout), ('branch_dropout', branch_dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f'Att2: {name}={rate}: must be at least 0 and below 1')
        self.compat, self.classify, self.mask = compat, classify, mask

        width = self.in_channels[-1]
        sees_g = compat == 'dp' or mask == 'sigmoid'
        pools = (2, 2) if pool_first else (1, 1)
        self.global_branch = GlobalBranch(width, pools, dropout, branch_dropout) if sees_g else None
        self.projections = nn.ModuleDict(
            {str(C): nn.Linear(width, C) for C in sorted(set(self.in_channels)) if width != C}
            if sees_g
            else {}
        )
        self.u = nn.ModuleList(
            [nn.Linear(C, 1, bias=sees_g) for C in self.in_channels] if compat == 'pc' else []
        )
        self.norms = nn.ModuleList(
            nn.Sequential(BatchNorm(C), nn.ReLU(), nn.Dropout(dropout)) if norm else nn.Identity()
            for C in self.in_channels
        )
        if classify == 'concat':
            self.classifier = nn.Linear(sum(self.in_channels), num_classes)
        else:
            self.classifier = nn.ModuleList(nn.Linear(C, num_classes) for C in self.in_channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Scores (N, Y): logits with 'concat', log-probabilities with 'indep'."""
        self.check_features(features)
        return self._classify(features, self.attend(features, self.global_feature(features)))

    def _classify(self, features: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        g_a = [
            norm(self._pool(L, a)) for norm, L, a in zip(self.norms, features, masks, strict=True)
        ]
        if self.classify == 'concat':
            return self.classifier(torch.cat(g_a, dim=1))
        log_p = [fc(g).log_softmax(dim=1) for fc, g in zip(self.classifier, g_a, strict=True)]
        # the logarithm of the mean probability (section 3.1)
        return torch.stack(log_p).logsumexp(dim=0) - math.log(len(log_p))

    def global_feature(self, features: Sequence[Tensor]) -> Tensor | None:
        """The global feature g (N, C) of the last map, or None where nothing can depend on it."""
        return None if self.global_branch is None else self.global_branch(features[-1])

    def attend(self, features: Sequence[Tensor], g: Tensor | None) -> list[Tensor]:
        """The attention a (N, H_s, W_s) of each level under a global feature g (N, C)."""
        return [self._attend_level(s, L, g) for s, L in enumerate(features)]

    def _attend_level(self, s: int, L: Tensor, g: Tensor | None) -> Tensor:
        width = str(self.in_channels[s])
        if g is not None and width in self.projections:
            g = self.projections[width](g)
        if self.compat == 'dp':
            c = match('nchw,nc->nhw', L, g)  # Eq. 3
        else:
            u = self.u[s]
            c = match('nchw,c->nhw', L, linear_weight(u)[0])  # Eq. 2, <u, l_i>
            if g is not None:
                c = c + u(g).unsqueeze(2)  # ... + <u, g>, where it does not cancel
        if self.mask == 'softmax':
            return c.flatten(1).softmax(dim=1).view_as(c)  # Eq. 1
        return c.sigmoid()  # not in the paper's own models

    def _pool(self, L: Tensor, a: Tensor) -> Tensor:
        if self.mask == 'sigmoid':
            a = a / (a.shape[1] * a.shape[2])  # not in the paper: an average for a sum, see above
        return torch.einsum('nhw,nchw->nc', a.to(L.dtype), L)  # section 3.1, g_a

    def attention(
        self, features: Sequence[Tensor], query: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """The attention a of each level: (N, 1, H_s, W_s).

        Args:
            features: the maps of the images looked at.
            query: the maps of other images, whose global feature asks instead (appendix A.5).

        Raises:
            ValueError: for a query, where no global feature has an effect.
        """
        self.check_features(features)
        if query is not None and self.global_branch is None:
            raise ValueError(
                "Att2: a query changes nothing with compat='pc' and mask='softmax', where the "
                "global feature cancels; it does in a model of compat='dp' or mask='sigmoid'"
            )
        g = self.global_feature(features if query is None else query)
        return [a.unsqueeze(1) for a in self.attend(features, g)]

    def loss(self, features: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, as ``ce``; of the averaged probabilities with 'indep'."""
        return {'ce': F.cross_entropy(self(features), target)}
