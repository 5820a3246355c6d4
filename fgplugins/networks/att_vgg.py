"""The VGG that att2 attends in, and CLAN's VGG-16 with the levels that its paper names.

Jetley et al., *Learn to Pay Attention*, ICLR 2018, https://arxiv.org/abs/1804.02391, section 4:
VGG-16 for 32 x 32 images whose first two poolings are moved to the end of the pipeline, so that the
levels attended to (layers 7, 10 and 13) have a higher resolution. What comes after layer 13 makes
the global feature and belongs to the method (`fgplugins.methods.att2.GlobalBranch`). Dropout after
convolutions and its rates, the normalisations' eps, and the 5 x 5 pooling for CUB's 80 x 80 images
are the official code's (https://github.com/saumya-jetley/cd_ICLR18_LearnToPayAttention).

Progressive attention (PAN; Seo et al., *Progressive Attention Networks for Visual Attribute
Prediction*, as applied by Jetley et al., appendix A.2) gates layer 10's features, position by
position, before the next layer sees them. The global feature g that they are matched with is made
of the map that is yet to be gated, by a branch of its own (official code).

Huang et al., *Cross-layer Attention Network*, CVPR 2020 workshops, section 4.1: conv4_3, conv5_2
and the map after the last pooling of VGG-16 with batch normalisation. timm's own gives conv5_3
instead of conv5_2. That the top map is the pooled one is an inference: Table 4 names conv5_3, but
the context module on conv5_3 itself would cost 0.822 G, and behind the pooling 0.668 G, which is
the 0.67 that Table 5 prints.

Deviations:
  * Convolutions are drawn by the number of their inputs (He et al., 2015), in the official code of
    att2 by that of their outputs; there, the single filter u of PAN's gate is so wide (1.4) that
    the gate would begin saturated.
"""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
from timm.models import build_model_with_cfg, register_model
from timm.models.vgg import VGG
from torch import Tensor, nn

from fgplugins.methods.att2 import GlobalBranch
from fgplugins.networks.cifar_wrn import cifar_cfg
from fgplugins.networks.sequential_cnn import SequentialCNN

__all__ = ['AttentionVGG', 'ProgressiveGate', 'convolution_block']


def convolution_block(
    in_channels: int, widths: Sequence[int], drop_rates: Sequence[float], **dd: object
) -> list[nn.Module]:
    """Convolutions, each with BatchNorm, ReLU and, where its rate is not 0, dropout.

    Args:
        in_channels: of the first one's input.
        widths: channels of each.
        drop_rates: of each.
        **dd: device and dtype.
    """
    layers: list[nn.Module] = []
    for width, rate in zip(widths, drop_rates, strict=True):
        layers += [
            nn.Conv2d(in_channels, width, 3, padding=1, **dd),
            nn.BatchNorm2d(width, eps=1e-3, **dd),
            # one module, so that the convolutions have the same names with and without dropout
            nn.Sequential(nn.ReLU(), nn.Dropout(rate)) if rate else nn.ReLU(),
        ]
        in_channels = width
    return layers


def drop_rates_of(block_drop_rate: float | Sequence[float], owner: str) -> tuple[float, float]:
    """The rates after the first convolution and after others, from one or both.

    Raises:
        ValueError: if these are not rates.
    """
    both = block_drop_rate
    rates = (both, both) if isinstance(both, (int, float)) else tuple(both)
    if len(rates) != 2 or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(
            f'{owner}: block_drop_rate={both}: give one rate, or that after the first convolution '
            'and that after others, each at least 0 and below 1'
        )
    return rates


class ProgressiveGate(nn.Module):
    """PAN's gate of local features l_i: sigmoid(<u, l_i + g> + b), g made of the same map.

    Args:
        channels: of the map.
        dropout: in g's branch, before its linear layer.
        conv_dropout: in g's branch, after each convolution.
        **dd: device and dtype.
    """

    def __init__(
        self, channels: int, dropout: float = 0.5, conv_dropout: float = 0.4, **dd: object
    ) -> None:
        super().__init__()
        self.u = nn.Conv2d(channels, 1, 1, **dd)
        self.global_branch = GlobalBranch(channels, (4, 2), dropout, conv_dropout, **dd)

    def forward(self, L: Tensor) -> Tensor:
        """The gate (N, 1, H, W) of a map (N, C, H, W)."""
        g = self.global_branch(L)[:, :, None, None]
        return self.u(L + g).sigmoid()


class Gated(nn.Module):
    """A map times its gate.

    Args:
        gate: (N, C, H, W) -> (N, 1, H, W).
    """

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, L: Tensor) -> Tensor:
        """The gated map (N, C, H, W)."""
        return L * self.gate(L)


class AttentionVGG(SequentialCNN):
    """13 convolutions; the maps of layers 7 (256, stride 1), 10 (512, 2) and 13 (512, 4).

    Args:
        num_classes: 0 for no classifier.
        in_chans: image channels.
        progressive: gate layer 10's map on its way to the next layer (PAN).
        block_drop_rate: dropout after the first convolution, and after the others but the last of
            each of VGG-16's blocks; one number is both, 0 none.
        first_pool: side of the pooling between layers 7 and 8; 5 for CUB's 80 x 80 images, where
            layer 10's map is then 16 x 16 as for 32 x 32 ones.
        device: where to create the parameters.
        dtype: their type.
        **kwargs: of `SequentialCNN`.

    Raises:
        ValueError: for a wrong rate or pooling.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        progressive: bool = False,
        block_drop_rate: float | Sequence[float] = (0.3, 0.4),
        first_pool: int = 2,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: object,
    ) -> None:
        first, later = drop_rates_of(block_drop_rate, 'AttentionVGG')
        if first_pool < 1:
            raise ValueError(f'AttentionVGG: first_pool={first_pool}: must be at least 1')
        dd = {'device': device, 'dtype': dtype}
        three = (512, 512, 512), (later, later, 0.0)
        stages = [
            [
                *convolution_block(in_chans, (64, 64), (first, 0.0), **dd),
                *convolution_block(64, (128, 128), (later, 0.0), **dd),
                *convolution_block(128, (256, 256, 256), (later, later, 0.0), **dd),
            ],
            [nn.MaxPool2d(first_pool, ceil_mode=True), *convolution_block(256, *three, **dd)],
            [nn.MaxPool2d(2, ceil_mode=True), *convolution_block(512, *three, **dd)],
        ]
        if progressive:
            # without dropout in the blocks there is none in the gate's branch
            rates = {'conv_dropout': later, 'dropout': 0.5 if later else 0.0}
            stages[1].append(Gated(ProgressiveGate(512, **rates, **dd)))
        super().__init__(
            [nn.Sequential(*layers) for layers in stages],
            (256, 512, 512),
            (1, first_pool, 2 * first_pool),
            num_classes,
            in_chans,
            **dd,
            **kwargs,
        )

    @property
    def attention_gates(self) -> tuple[str, ...]:
        """Names of the submodules whose output is a gate (N, 1, H, W), shallow to deep."""
        return tuple(n for n, m in self.named_modules() if isinstance(m, ProgressiveGate))


class ClanVGG(VGG):
    """timm's VGG whose feature maps are the outputs of the convolutions named, and the end.

    Args:
        cfg: timm's list of widths and 'M' for pooling.
        convolutions: (block, convolution) counted from one, as (5, 2) for conv5_2.
        **kwargs: of timm's VGG.
    """

    def __init__(
        self, cfg: Sequence[int | str], convolutions: Sequence[tuple[int, int]], **kwargs: object
    ) -> None:
        super().__init__(cfg, **kwargs)
        block, index, stride, ends, info = 1, 0, 1, [], []
        for i, layer in enumerate(self.features):
            if isinstance(layer, nn.Conv2d):
                index, channels = index + 1, layer.out_channels
            elif isinstance(layer, nn.MaxPool2d):
                block, index, stride = block + 1, 0, stride * 2
            elif isinstance(layer, nn.ReLU) and (block, index) in tuple(map(tuple, convolutions)):
                ends.append(i)
                info.append((channels, stride))
        ends.append(len(self.features) - 1)
        info.append((channels, stride))
        self.feature_ends = ends
        self.feature_info = [
            {'num_chs': c, 'reduction': r, 'module': f'features.{i}'}
            for i, (c, r) in zip(ends, info, strict=True)
        ]


default_cfgs = {
    'att_vgg': cifar_cfg(first_conv='stages.0.0'),
    # the same network as timm's, so the same published weights
    'clan_vgg16': {
        k: v
        for k, v in timm.get_pretrained_cfg('vgg16_bn').to_dict().items()
        if k not in ('architecture', 'tag')
    },
}


@register_model
def att_vgg(pretrained: bool = False, **kwargs: object) -> AttentionVGG:
    """VGG-16 for 32 x 32 images with the first two poolings left to the end."""
    return build_model_with_cfg(
        AttentionVGG,
        'att_vgg',
        pretrained,
        feature_cfg={'out_indices': (0, 1, 2), 'feature_cls': 'getter'},
        **kwargs,
    )


@register_model
def clan_vgg16(pretrained: bool = False, **kwargs: object) -> ClanVGG:
    """VGG-16 with batch normalisation; maps of conv4_3, conv5_2 and the last pooling."""
    widths = [
        64,
        64,
        'M',
        128,
        128,
        'M',
        256,
        256,
        256,
        'M',
        512,
        512,
        512,
        'M',
        512,
        512,
        512,
        'M',
    ]
    arguments = {'cfg': widths, 'convolutions': ((4, 3), (5, 2)), 'norm_layer': nn.BatchNorm2d}
    return build_model_with_cfg(
        ClanVGG,
        'clan_vgg16',
        pretrained,
        feature_cfg={'out_indices': (0, 1, 2), 'feature_cls': 'getter'},
        **{**arguments, **kwargs},
    )
