"""The VGG that att2 attends in, and CLAN's VGG-16 with the levels that its paper names.

Jetley et al., *Learn to Pay Attention*, ICLR 2018, https://arxiv.org/abs/1804.02391, section 4:
VGG-16 for 32 x 32 images whose first two poolings are moved to the end of the pipeline, so that the
levels attended to (layers 7, 10 and 13) have a higher resolution. What comes after layer 13 makes
the global feature and belongs to the method (`fgplugins.methods.att2.GlobalBranch`).

Huang et al., *Cross-layer Attention Network*, CVPR 2020 workshops, section 4.1: conv4_3, conv5_2
and the map after the last pooling of VGG-16 with batch normalisation. timm's own gives conv5_3
instead of conv5_2.

Progressive attention (PAN; Seo et al., *Progressive Attention Networks for Visual Attribute
Prediction*, as applied by Jetley et al., appendix A.2) gates layer 10's features, position by
position, before the next layer sees them.
"""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
from timm.models import build_model_with_cfg, register_model
from timm.models.vgg import VGG
from torch import Tensor, nn

from fgplugins.networks.cifar_wrn import cifar_cfg
from fgplugins.networks.sequential_cnn import SequentialCNN

__all__ = ['AttentionVGG', 'ProgressiveGate']


class ProgressiveGate(nn.Module):
    """l_i sigmoid(<u, l_i>): local features weighed by their own compatibility (PAN).

    The paper scores l_i + g, but g is made of what comes after the gate, so it has no part here.

    Args:
        channels: of the map.
        **dd: device and dtype.
    """

    def __init__(self, channels: int, **dd: object) -> None:
        super().__init__()
        self.u = nn.Conv2d(channels, 1, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """The gated map (N, C, H, W)."""
        return x * self.u(x).sigmoid()


class AttentionVGG(SequentialCNN):
    """13 convolutions; the maps of layers 7 (256, stride 1), 10 (512, 2) and 13 (512, 4).

    Args:
        num_classes: 0 for no classifier.
        in_chans: image channels.
        progressive: gate layer 10's map on its way to the next layer (PAN).
        device: where to create the parameters.
        dtype: their type.
        **kwargs: of `SequentialCNN`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        progressive: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: object,
    ) -> None:
        dd = {'device': device, 'dtype': dtype}

        def convolutions(inside: int, widths: Sequence[int]) -> list[nn.Module]:
            layers = []
            for width in widths:
                layers += [nn.Conv2d(inside, width, 3, padding=1, **dd)]
                layers += [nn.BatchNorm2d(width, **dd), nn.ReLU()]
                inside = width
            return layers

        middle = [nn.MaxPool2d(2), *convolutions(256, (512, 512, 512))]
        if progressive:
            middle.append(ProgressiveGate(512, **dd))
        stages = [
            nn.Sequential(*convolutions(in_chans, (64, 64, 128, 128, 256, 256, 256))),
            nn.Sequential(*middle),
            nn.Sequential(nn.MaxPool2d(2), *convolutions(512, (512, 512, 512))),
        ]
        channels, reductions = (256, 512, 512), (1, 2, 4)
        super().__init__(stages, channels, reductions, num_classes, in_chans, **dd, **kwargs)


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
