"""The VGG that att2 is compared with: VGG-16 for 32 x 32 images, with dropout throughout.

Jetley et al., *Learn to Pay Attention*, ICLR 2018, https://arxiv.org/abs/1804.02391, Tables 1 and
2, "VGG": that of https://github.com/szagoruyko/cifar.torch, which appendix A.2 names. Thirteen
convolutions in five blocks, each with BatchNorm and ReLU, a max-pooling behind each block, one
hidden fully connected layer of 512 and the classifier; dropout as in `att_vgg`, and before both
fully connected layers (official code,
https://github.com/saumya-jetley/cd_ICLR18_LearnToPayAttention).

The intermediates are the ends of the blocks, before they are pooled.

Deviations:
  * The last pooling takes whatever is left, so that images of any size give one vector; for 32 x 32
    ones it is the official 2 x 2 pooling, for CUB's 80 x 80 ones the official 3 x 3.
  * Convolutions are drawn as in `att_vgg`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_module,
)
from torch import nn

from fgplugins.methods.layers import BatchNorm
from fgplugins.networks.att_vgg import convolution_block, drop_rates_of
from fgplugins.networks.cifar_wrn import cifar_cfg
from fgplugins.networks.sequential_cnn import HiddenHead, SequentialCNN

__all__ = ['CifarVGG']

register_notrace_module(BatchNorm)  # torch.fx takes it as one node, as PyTorch's own


class CifarVGG(SequentialCNN):
    """Five blocks of convolutions, whose ends (strides 1, 2, 4, 8 and 16) are the feature maps.

    Args:
        num_classes: 0 for no classifier.
        in_chans: image channels.
        block_drop_rate: dropout after the first convolution, and after the others but the last of
            each block; one number is both, 0 none.
        pool_before_last: pool before the last convolution too, as the official network for CUB's
            80 x 80 images does.
        hidden_drop_rate: dropout before the hidden fully connected layer.
        drop_rate: dropout before the classifier.
        global_pool: '' without classes for the last map in place of the hidden layer's vector.
        device: where to create the parameters.
        dtype: their type.

    Raises:
        ValueError: for a wrong rate.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        block_drop_rate: float | Sequence[float] = (0.3, 0.4),
        pool_before_last: bool = False,
        hidden_drop_rate: float = 0.5,
        drop_rate: float = 0.5,
        global_pool: str | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        first, later = drop_rates_of(block_drop_rate, 'CifarVGG')
        dd = {'device': device, 'dtype': dtype}
        widths, depths = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)
        inside, stages = in_chans, []
        for width, depth in zip(widths, depths, strict=True):
            rates = [later] * (depth - 1) + [0.0]
            if not stages:
                rates[0] = first
            pool = [nn.MaxPool2d(2, ceil_mode=True)] if stages else []
            stages.append([*pool, *convolution_block(inside, [width] * depth, rates, **dd)])
            inside = width
        if pool_before_last:
            stages[-1].insert(-3, nn.MaxPool2d(2, ceil_mode=True))
        hidden = nn.Sequential(
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Dropout(hidden_drop_rate),
            nn.Linear(512, 512, **dd),
            BatchNorm(512, **dd),
            nn.ReLU(),
        )
        super().__init__(
            [nn.Sequential(*layers) for layers in stages],
            widths,
            (1, 2, 4, 8, 32 if pool_before_last else 16),
            num_classes,
            in_chans,
            drop_rate=drop_rate,
            head=HiddenHead(hidden, 512, num_classes, global_pool, drop_rate, **dd),
            **dd,
        )


default_cfgs = generate_default_cfgs(
    {'cifar_vgg16.untrained': cifar_cfg(first_conv='stages.0.0', pool_size=(2, 2))}
)


@register_model
def cifar_vgg16(pretrained: bool = False, **kwargs: object) -> CifarVGG:
    """VGG-16 for 32 x 32 images with BatchNorm and dropout: 15.0 M parameters."""
    return build_model_with_cfg(
        CifarVGG,
        'cifar_vgg16',
        pretrained,
        feature_cfg={'out_indices': (0, 1, 2, 3, 4), 'feature_cls': 'getter'},
        **kwargs,
    )
