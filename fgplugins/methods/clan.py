"""CLAN: mid-level maps and the top map refine each other by attention.

Huang, Wang and Yang, *Cross-layer Attention Network for Fine-grained Visual Categorization*, CVPR
2020 workshops. L^1 ... L^(N-1) are mid-level maps, L^N is the top one, up() brings it to the
positions of level s, R brings a map to those of the top. Cross-layer context attention (CLCA):

    l^_i = W_l l_i + W_g up(L^N)_i                                           (1)
    y_i  = 1/C(l) sum_j f(l^_i, l^_j) W_k l_j                                (2)
    L^s  = W_y y + l   (the refined mid-level map)                           (3, 4)
    f(a, b) = exp(a.b),                  C = sum_j f    'gaussian'           (5)
    f(a, b) = exp(theta(a).phi(b)),      C = sum_j f    'embedded_gaussian'  (6)
    f(a, b) = theta(a).phi(b),           C = n          'dot'                (7)

Cross-layer spatial attention (CLSA), of the refined mid-level maps:

    M^s     = K * [AvgPool(L^s); MaxPool(L^s)]   (over channels, K 3x3)      (8)
    L^(s,N) = R(M^s) L^N                                                     (9, 10)
    L^N_CLSA = [L^(1,N); ...; L^(N-1,N)]                                     (11)

Every refined mid-level map, the top map and the CLSA map is pooled and classified on its own; the
loss is the sum of their cross-entropies (12 to 14), the prediction the mean of their scores. The
top map's branch is the network's own prediction: its embedding and its classifier. Without CLSA
(``spatial=False``: the rows "CLCA" of Tables 1 and 2) there is neither its map nor its branch.

What is computed differently, all of it exact (`CLAN.forward_paper` keeps the printed order):
  * CLCA takes the order of its products, and what is folded into what, by the shape of the maps
    (`fgplugins.methods.fast.clan`).
  * Pooling R(M) L^N is a weighted average of L^N; the product map is not made.

Deviations and decisions where the paper is silent:
  * C_int is half of the level's channels: 256 on VGG-16 (this gives Table 5 to the digit), 512 on
    ResNets' fourth group.
  * Up- and down-sampling are bilinear. M has no non-linearity, as printed; ``mask='sigmoid'`` adds
    the one of CBAM, which section 3.2 follows.
  * The weights of the "weighted sum" of losses are 1, as Eqs. 12 to 14 have it.
  * The results that "are averaged to obtain the final prediction" are logits;
    ``average='probabilities'`` averages the branches' softmax probabilities.
  * Relations are cubic in the maps and soon too large for float16: where the type would be that,
    all of it runs in float32, and so do the scores.
  * W_y starts at zero, so that a pretrained network starts with its own maps (Wang et al.,
    *Non-local Neural Networks*, CVPR 2018, section 4.1, whose block this is).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.methods.base import Method, NoClassMap
from fgplugins.methods.fast.clan import FastContextAttention
from fgplugins.methods.gap import class_activation
from fgplugins.methods.layers import resize, without_float16
from fgplugins.methods.registry import register_method

__all__ = [
    'CLAN',
    'BranchClassifiers',
    'ContextAttention',
    'CrossLayerRefinement',
    'SpatialAttention',
]


class ContextAttention(FastContextAttention):
    """CLCA, Eqs. 1 to 4; without the top map it is the non-local block (Table 2).

    Args:
        channels: C_s of the mid-level map.
        top_channels: C_g of the top map; None for the non-local block.
        inner_channels: C_int.
        relation: 'dot' | 'embedded_gaussian' | 'gaussian'.
    """

    def __init__(
        self, channels: int, top_channels: int | None, inner_channels: int, relation: str
    ) -> None:
        super().__init__()
        self.relation, self.inner_channels = relation, inner_channels
        cross_layer, embedded = top_channels is not None, relation != 'gaussian'
        self.W_l = nn.Conv2d(channels, channels, 1) if cross_layer else None
        self.W_g = nn.Conv2d(top_channels, channels, 1) if cross_layer else None
        self.theta = nn.Conv2d(channels, inner_channels, 1) if embedded else None
        self.phi = nn.Conv2d(channels, inner_channels, 1) if embedded else None
        self.W_k = nn.Conv2d(channels, inner_channels, 1)
        self.W_y = nn.Conv2d(inner_channels, channels, 1)
        nn.init.zeros_(self.W_y.weight)
        nn.init.zeros_(self.W_y.bias)

    def forward_paper(self, L: Tensor, L_N: Tensor) -> Tensor:
        """The refined map (N, C_s, H, W) of L (N, C_s, H, W) and the top map L^N (N, C_g, h, w).

        As printed: the maps are fused, every position is related with every other. W_g goes before
        the up-sampling, where Table 5 counts it.
        """
        fused = L if self.W_l is None else self.W_l(L) + resize(self.W_g(L_N), L)  # Eq. 1
        theta, phi = (fused, fused) if self.theta is None else (self.theta(fused), self.phi(fused))
        f = torch.bmm(theta.flatten(2).transpose(1, 2), phi.flatten(2))  # (N, n, n)
        f = f / f.shape[2] if self.relation == 'dot' else f.softmax(dim=2)  # Eqs. 5 to 7
        y = torch.bmm(self.W_k(L).flatten(2), f.transpose(1, 2))  # Eq. 2
        return self.W_y(y.unflatten(2, L.shape[2:])) + L  # Eq. 3


class SpatialAttention(nn.Module):
    """The map M of Eq. 8, brought to the top level's size.

    Args:
        pooling: over channels: 'avg' | 'max' | 'avg_max' (Table 3).
        mask: 'none' (as printed) | 'sigmoid'.
    """

    def __init__(self, pooling: str, mask: str) -> None:
        super().__init__()
        self.pooling, self.mask = pooling, mask
        self.K = nn.Conv2d(2 if pooling == 'avg_max' else 1, 1, 3, padding=1)

    def forward(self, L: Tensor) -> Tensor:
        """M (N, 1, H, W) of a refined mid-level map (N, C_s, H, W)."""
        pooled = []
        if self.pooling != 'max':
            pooled.append(L.mean(dim=1, keepdim=True))
        if self.pooling != 'avg':
            pooled.append(L.amax(dim=1, keepdim=True))
        M = self.K(torch.cat(pooled, dim=1))  # Eq. 8
        return M.sigmoid() if self.mask == 'sigmoid' else M


class CrossLayerRefinement(nn.Module):
    """CLCA on every mid-level map, CLSA on the top one.

    Args:
        in_channels: channels of L^1 ... L^N.
        inner_channels: C_int; half of each level's channels if None.
        relation: of Eq. 2.
        context: what refines mid-level maps: 'clca' | 'non_local' | 'gap' (nothing; Table 2).
        pooling: of Eq. 8.
        mask: of Eq. 8.
        spatial: with CLSA.

    Raises:
        ValueError: for fewer than two levels, or a value outside the documented ones.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        inner_channels: int | None = None,
        relation: str = 'dot',
        context: str = 'clca',
        pooling: str = 'avg_max',
        mask: str = 'none',
        spatial: bool = True,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ('relation', relation, ('dot', 'embedded_gaussian', 'gaussian')),
            ('context', context, ('clca', 'non_local', 'gap')),
            ('pooling', pooling, ('avg', 'max', 'avg_max')),
            ('mask', mask, ('none', 'sigmoid')),
        ):
            if value not in known:
                raise ValueError(f'CLAN: {name}={value!r}: must be one of {", ".join(known)}')
        if len(in_channels) < 2:
            raise ValueError(
                f'CLAN: in_channels={list(in_channels)}: needs a top level and at least one below'
            )
        if inner_channels is not None and inner_channels < 1:
            raise ValueError(f'CLAN: inner_channels={inner_channels}: needs at least 1')
        if context == 'non_local' and relation == 'gaussian':
            raise ValueError(
                "CLAN: context='non_local' with relation='gaussian' is not in the paper"
            )
        if not spatial and (pooling, mask) != ('avg_max', 'none'):
            raise ValueError(
                f'CLAN: pooling={pooling!r}, mask={mask!r}: spatial=False has no map of Eq. 8 for '
                'them: leave both out, or set spatial=True'
            )
        *mid, top = in_channels
        top_channels = top if context == 'clca' else None
        self.context = nn.ModuleList(
            nn.Identity()
            if context == 'gap'
            else ContextAttention(C, top_channels, inner_channels or max(C // 2, 1), relation)
            for C in mid
        )
        self.spatial = nn.ModuleList(SpatialAttention(pooling, mask) for _ in mid if spatial)

    def refine(self, features: Sequence[Tensor], paper: bool = False) -> list[Tensor]:
        """The refined mid-level maps (Eq. 4)."""
        *mid, top = features
        refined = []
        for module, L in zip(self.context, mid, strict=True):
            if isinstance(module, nn.Identity):
                refined.append(L)
            else:
                refined.append((module.forward_paper if paper else module)(L, top))
        return refined

    def maps(self, refined: Sequence[Tensor], top: Tensor) -> list[Tensor]:
        """R(M^s) (N, 1, h, w) for each mid level, where there is CLSA."""
        return [resize(m(L), top) for m, L in zip(self.spatial, refined, strict=True)]

    @without_float16
    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Refined mid-level maps, the top map, and the CLSA map (N, (N-1) C_g, h, w) of Eq. 11.

        Without CLSA, the refined maps and the top one.
        """
        refined, top = self.refine(features), features[-1]
        if not self.spatial:
            return (*refined, top)
        clsa = [M * top for M in self.maps(refined, top)]  # Eq. 9
        return (*refined, top, torch.cat(clsa, dim=1))  # Eq. 11


class BranchClassifiers(nn.Module):
    """One linear layer for each pooled map; Eqs. 12 to 14.

    Args:
        channels: of the vectors, in the order of `CrossLayerRefinement.forward`.
        num_classes: Y.
        branches: which of them predict: names of `names`; all if None.
        spatial: with a CLSA map, the last one.
        average: what the prediction is the mean of: 'logits' | 'probabilities'.

    Raises:
        ValueError: if a branch is asked for that is not there, or for another ``average``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        branches: Sequence[str] | None = None,
        spatial: bool = True,
        average: str = 'logits',
    ) -> None:
        super().__init__()
        above = ['top', 'clsa'] if spatial else ['top']
        self.names = [f'mid{s + 1}' for s in range(len(channels) - len(above))] + above
        self.branches = self.names if branches is None else list(branches)
        if not self.branches or set(self.branches) - set(self.names):
            without = '' if spatial else ' (spatial=False has no clsa)'
            raise ValueError(
                f'CLAN: branches={list(branches)}: choose from {", ".join(self.names)}{without}'
            )
        if average not in ('logits', 'probabilities'):
            raise ValueError(f"CLAN: average={average!r}: must be 'logits' or 'probabilities'")
        self.average = average
        self.fc = nn.ModuleDict(
            {name: nn.Linear(C, num_classes) for name, C in zip(self.names, channels, strict=True)}
        )

    @without_float16
    def forward(self, pooled: Sequence[Tensor]) -> dict[str, Tensor]:
        """Scores (N, Y) of each branch from its vector (N, C): its pooled map, or the embedding."""
        return {name: self.fc[name](x) for name, x in zip(self.names, pooled, strict=True)}

    def predict(self, scores: dict[str, Tensor]) -> Tensor:
        """The mean over the branches that predict: of scores, or log of that of probabilities."""
        chosen = torch.stack([scores[name] for name in self.branches])
        if self.average == 'logits':
            return chosen.mean(dim=0)
        return chosen.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(chosen))

    def loss(self, scores: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of every branch (Eqs. 12 to 14), whichever of them predict."""
        terms = {name: F.cross_entropy(s, target) for name, s in scores.items()}  # Eqs. 12 to 14
        return {f'ce_{name}': term for name, term in terms.items()}


@register_method('clan')
class CLAN(Method):
    """Mid-level and top maps refine each other; every branch classifies, the scores are averaged.

    Args:
        in_channels: channels of L^1 ... L^N; two are the paper's 2-scale, three its 3-scale model.
        num_classes: Y.
        inner_channels: C_int; half of each mid level's channels if None.
        relation: 'dot' (Eq. 7) | 'embedded_gaussian' (Eq. 6) | 'gaussian' (Eq. 5).
        context: what refines mid-level maps: 'clca' | 'non_local' | 'gap' (Table 2).
        pooling: over channels in Eq. 8: 'avg' | 'max' | 'avg_max' (Table 3).
        mask: of Eq. 8: 'none' | 'sigmoid'.
        branches: which of 'mid1' ... 'top', 'clsa' predict (Table 4); all if None. All are trained.
        spatial: with CLSA; without it there is no 'clsa' branch, neither to train nor to predict.
        average: of the branches' 'logits' | 'probabilities'; scores are logarithms of the latter.
        embedding_channels: D, where the network's embedding is given; else it is the mean of the
            top map.

    Raises:
        ValueError: for fewer than two levels, or a value outside the documented ones.
    """

    default_taps = 2
    reads_embedding = True
    embedding_classifier = 'classifier.fc.top'

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        inner_channels: int | None = None,
        relation: str = 'dot',
        context: str = 'clca',
        pooling: str = 'avg_max',
        mask: str = 'none',
        branches: Sequence[str] | None = None,
        spatial: bool = True,
        average: str = 'logits',
        *,
        embedding_channels: int | None = None,
    ) -> None:
        super().__init__(in_channels, num_classes, embedding_channels)
        self.refinement = CrossLayerRefinement(
            self.in_channels, inner_channels, relation, context, pooling, mask, spatial
        )
        *mid, top = self.in_channels
        vectors = [*mid, self.head_channels, *([len(mid) * top] if spatial else [])]
        self.classifier = BranchClassifiers(vectors, num_classes, branches, spatial, average)

    @without_float16
    def forward_paper(self, features: Sequence[Tensor], embedding: Tensor | None = None) -> Tensor:
        """`forward`, with CLCA as printed and the CLSA map made before it is pooled."""
        z, top = self.embed(features, embedding), features[-1]
        refined = self.refinement.refine(features, paper=True)
        vectors = [*(L.mean(dim=(2, 3)) for L in refined), self.head_drop(z)]
        if self.refinement.spatial:
            clsa = torch.cat([M * top for M in self.refinement.maps(refined, top)], dim=1)
            vectors.append(clsa.mean(dim=(2, 3)))
        return self.classifier.predict(self.classifier(vectors))

    def forward(self, features: Sequence[Tensor], embedding: Tensor | None = None) -> Tensor:
        """Scores (N, Y): the mean over the branches that predict, of what ``average`` says."""
        return self.classifier.predict(self.branch_scores(features, embedding))

    @without_float16
    def branch_scores(
        self, features: Sequence[Tensor], embedding: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scores (N, Y) of every branch by its name."""
        z, top = self.embed(features, embedding), features[-1]
        refined = self.refinement.refine(features)
        vectors = [*(L.mean(dim=(2, 3)) for L in refined), self.head_drop(z)]
        if self.refinement.spatial:
            M = torch.cat(self.refinement.maps(refined, top), dim=1) / (top.shape[2] * top.shape[3])
            clsa = torch.einsum('nshw,nchw->nsc', M, top).flatten(1)  # Eqs. 9 to 11, pooled
            vectors.append(clsa)
        return self.classifier(vectors)

    def name_heads(self) -> list[Sequence[str]]:
        """Of every level its spatial attention, at the top that of each mid level; then the CAM."""
        mids = range(1, len(self.refinement.spatial) + 1)
        of_mids = ['spatial attention'] if len(mids) == 1 else []
        of_mids = of_mids or [f'spatial attention of level {s}' for s in mids]
        own = ['spatial attention'] if mids else []
        return [[*own, 'class activation']] * (self.taps - 1) + [[*of_mids, 'class activation']]

    @without_float16
    def attention(
        self, features: Sequence[Tensor], embedding: Tensor | None = None
    ) -> list[Tensor]:
        """What the paper's figures show, of each level.

        First the spatial attention (Fig. 6): M^s (N, 1, H_s, W_s) of a mid level, all R(M^s) of the
        top one; M may be negative and is shown above its smallest value in the image. Then what
        the level's branch bases the predicted class on (Figs. 4, 5): Grad-CAM, which behind pooling
        and a linear layer is the class activation map. The top level has none in a network whose
        embedding does not depend on positions.

        Without CLSA a level has its class activation map alone, and such a top level no map: its
        stack is (N, 0, H_s, W_s).
        """
        z, top = self.embed(features, embedding), features[-1]
        scores, refined = self(features, embedding), self.refinement.refine(features)
        masks = [[L[:, :0]] for L in (*refined, top)]  # none
        if self.refinement.spatial:
            M = [m(L) for m, L in zip(self.refinement.spatial, refined, strict=True)]
            M.append(torch.cat([resize(m, top) for m in M], dim=1))
            masks = [[m - m.amin(dim=(2, 3), keepdim=True)] for m in M]
        for name, mask, L in zip(self.classifier.names, masks, (*refined, top), strict=False):
            is_mean = name != 'top' or self.embedding_channels is None
            vector = L.mean(dim=(2, 3)) if is_mean else z
            with contextlib.suppress(NoClassMap):
                mask.append(class_activation(self.classifier.fc[name], scores, L, vector, is_mean))
        return [torch.cat(mask, dim=1) for mask in masks]

    def loss(
        self, features: Sequence[Tensor], target: Tensor, embedding: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross-entropy of every branch, as ``ce_mid1`` ... ``ce_top``, ``ce_clsa``."""
        return self.classifier.loss(self.branch_scores(features, embedding), target)

    @property
    def attention_needs_gradient(self) -> bool:
        return self.embedding_channels is not None
