"""Residual networks for 32 x 32 images.

He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016,
https://arxiv.org/abs/1512.03385, section 4.2: a 3x3 convolution, three groups of
n = (depth - 2) / 6 basic blocks at strides 1, 2 and 4 with 16, 32 and 64 channels, global average
pooling and a linear layer. Shortcuts have no parameters (option A). timm has the ImageNet form.

The intermediates are the groups' outputs: behind their last ReLU, and what the next group reads.

Deviations: none.
"""

from __future__ import annotations

import torch
from timm.layers import ConvNormAct
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from fgplugins.networks.cifar_wrn import cifar_cfg
from fgplugins.networks.sequential_cnn import SequentialCNN

__all__ = ['CifarResNet']


class BasicBlock(nn.Module):
    """ReLU(x + conv-BN-ReLU-conv-BN(x)); where the size changes, x is subsampled and zero-padded.

    Args:
        in_channels: channels of the input.
        channels: channels of the output, at least as many.
        stride: of the first convolution.
        **dd: device and dtype.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, **dd: object) -> None:
        super().__init__()
        self.stride, self.added = stride, channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False, **dd)
        self.norm1 = nn.BatchNorm2d(channels, **dd)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False, **dd)
        self.norm2 = nn.BatchNorm2d(channels, **dd)

    def shortcut(self, x: Tensor) -> Tensor:
        """Identity with zeros for the channels that are new (section 3.3, option A)."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.added)) if self.added else x

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + residual)


class CifarResNet(SequentialCNN):
    """ResNet-depth with three feature maps at strides 1, 2 and 4.

    Args:
        depth: number of layers, 6 n + 2.
        num_classes: 0 for no classifier.
        in_chans: image channels.
        device: where to create the parameters.
        dtype: their type.
        **kwargs: of `SequentialCNN`.
    """

    def __init__(
        self,
        depth: int = 110,
        num_classes: int = 10,
        in_chans: int = 3,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: object,
    ) -> None:
        n = (depth - 2) // 6
        if n < 1 or 6 * n + 2 != depth:
            raise ValueError(f'CifarResNet: depth={depth}: must be 6 n + 2, as 20 or 110')
        dd = {'device': device, 'dtype': dtype}
        widths, strides = (16, 32, 64), (1, 2, 2)
        inside, stages = widths[0], []
        for width, stride in zip(widths, strides, strict=True):
            blocks = [BasicBlock(inside, width, stride, **dd)]
            blocks += [BasicBlock(width, width, 1, **dd) for _ in range(n - 1)]
            stages.append(blocks)
            inside = width
        stages[0].insert(0, ConvNormAct(in_chans, widths[0], 3, **dd))
        super().__init__(
            [nn.Sequential(*blocks) for blocks in stages],
            widths,
            (1, 2, 4),
            num_classes,
            in_chans,
            **dd,
            **kwargs,
        )

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """How timm groups the parameters by depth."""
        return {
            'stem': r'^stages\.0\.0\.',
            'blocks': r'^stages\.(\d+)' if coarse else r'^stages\.(\d+)\.(\d+)',
        }


default_cfgs = generate_default_cfgs(
    {'resnet110.untrained': cifar_cfg(first_conv='stages.0.0.conv')}
)


@register_model
def resnet110(pretrained: bool = False, **kwargs: object) -> CifarResNet:
    """ResNet-110 for 32 x 32 images: 1.7 M parameters."""
    return build_model_with_cfg(
        CifarResNet,
        'resnet110',
        pretrained,
        feature_cfg={'out_indices': (0, 1, 2), 'feature_cls': 'getter'},
        **{'depth': 110, **kwargs},
    )
