"""The five-convolution network of WARN's study on cluttered translated digits.

Rodriguez et al., *Attend and Rectify*, ECCV 2018, https://arxiv.org/abs/1807.07320, section 4.2:
five 3x3 convolutions, the first three followed by batch normalisation and a spatial pooling;
attention modules from the fifth convolution back, after each pooling.

Deviations: the paper gives no widths; the two fully connected layers at its end are the global
pooling and linear layer of whatever method is put on top, as for every backbone here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from fgplugins.networks.sequential_cnn import SequentialCNN

__all__ = ['ClutterCNN']


class ClutterCNN(SequentialCNN):
    """Five convolutions, four feature maps: after each pooling (strides 2, 4, 8) and at the end.

    Args:
        widths: channels of the five convolutions.
        num_classes: 0 for no classifier.
        in_chans: image channels.
        device: where to create the parameters.
        dtype: their type.
        **kwargs: of `SequentialCNN`.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 128, 128),
        num_classes: int = 10,
        in_chans: int = 1,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: object,
    ) -> None:
        if len(widths) != 5:
            raise ValueError(f'ClutterCNN: widths={list(widths)}: needs five numbers')
        dd = {'device': device, 'dtype': dtype}

        def pooled(inside: int, outside: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inside, outside, 3, padding=1, bias=False, **dd),
                nn.BatchNorm2d(outside, **dd),
                nn.ReLU(),
                nn.MaxPool2d(2),
            )

        last = nn.Sequential(
            nn.Conv2d(widths[2], widths[3], 3, padding=1, **dd),
            nn.ReLU(),
            nn.Conv2d(widths[3], widths[4], 3, padding=1, **dd),
            nn.ReLU(),
        )
        stages = [
            pooled(in_chans, widths[0]),
            pooled(widths[0], widths[1]),
            pooled(widths[1], widths[2]),
            last,
        ]
        channels = (widths[0], widths[1], widths[2], widths[4])
        super().__init__(stages, channels, (2, 4, 8, 8), num_classes, in_chans, **dd, **kwargs)


default_cfgs = generate_default_cfgs(
    {
        'clutter_cnn.untrained': {
            'num_classes': 10,
            'input_size': (1, 40, 40),
            'pool_size': (5, 5),
            'crop_pct': 1.0,
            'interpolation': 'bilinear',
            'mean': (0.0,),
            'std': (1.0,),
            'first_conv': 'stages.0.0',
            'classifier': 'head.fc',
            'license': 'apache-2.0',
        }
    }
)


@register_model
def clutter_cnn(pretrained: bool = False, **kwargs: object) -> ClutterCNN:
    """The network of WARN's ablation study, for 40 x 40 grey images."""
    return build_model_with_cfg(
        ClutterCNN,
        'clutter_cnn',
        pretrained,
        feature_cfg={'out_indices': (0, 1, 2, 3), 'feature_cls': 'getter'},
        **kwargs,
    )
