"""CLAN's refinement as a neck, in front of any head that takes several maps."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor

from fgplugins.methods.clan import CrossLayerRefinement
from fgplugins.zoo_mmpretrain.backbone_maps import split_embedding
from fgplugins.zoo_mmpretrain.registry import MODELS, register

__all__ = ['CLANNeck']


class CLANNeck(BaseModule):
    """CLCA and CLSA: N maps in; the N - 1 refined ones, the top one and the CLSA map out.

    With `MultiBranchHead` it is the method ``clan``; `fgplugins.methods.clan` has the equations.
    Without CLSA no such map comes out, and the head is told the same: ``spatial=False`` in both.

    Args:
        in_channels: channels of the maps, shallow to deep.
        inner_channels: C_int; half of each mid level's channels if None.
        relation: 'dot' | 'embedded_gaussian' | 'gaussian'.
        context: 'clca' | 'non_local' | 'gap'.
        pooling: 'avg' | 'max' | 'avg_max'.
        mask: 'none' | 'sigmoid'.
        spatial: with CLSA.
        init_cfg: mmengine's initialisation.

    Attributes:
        out_channels: of the maps that come out.
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
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.refinement = CrossLayerRefinement(
            in_channels, inner_channels, relation, context, pooling, mask, spatial
        )
        *mid, top = in_channels
        self.in_channels = (*mid, top)
        self.out_channels = (*mid, top, len(mid) * top) if spatial else (*mid, top)

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps (N, C, H, W) of `out_channels` from maps of `in_channels`.

        An embedding (N, D) behind the maps passes it by.
        """
        maps, embedding = split_embedding(feats)
        given = [f.shape[1] for f in maps]
        if given != list(self.in_channels):
            raise ValueError(
                f'CLANNeck was built for in_channels={list(self.in_channels)}, '
                f'the backbone gives {given}'
            )
        refined = self.refinement(maps)
        return refined if embedding is None else (*refined, embedding)


register(MODELS, CLANNeck)
