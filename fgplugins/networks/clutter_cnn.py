"""The five-convolution network of WARN's study on cluttered translated digits.

Rodriguez et al., *Attend and Rectify*, ECCV 2018, https://arxiv.org/abs/1807.07320, section 4.2:
five 3x3 convolutions, the first three followed by batch normalisation and a spatial pooling;
attention modules from the fifth convolution back, after each pooling.

The paper's network ends in two fully connected layers: `clutter_cnn_2fc`, for images of one size.
`clutter_cnn` ends in average pooling and one linear layer, and takes images of any size.

Deviations:
  * The paper gives no widths. The hidden fully connected layer has 256 units, as the baselines in
    the work whose procedure it follows (Mnih et al., *Recurrent Models of Visual Attention*, 2014),
    and reads all positions of the last map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import to_2tuple
from timm.layers.trace_utils import _assert
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from fgplugins.networks.sequential_cnn import HiddenHead, SequentialCNN

__all__ = ['ClutterCNN', 'ClutterCNN2FC']


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


class FlattenOfOneSize(nn.Module):
    """Maps (N, C, H, W) as vectors (N, C H W).

    Args:
        height: H.
        width: W.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[2], x.shape[3]
        built = f'the fully connected layers were built for {self.height} x {self.width}'
        message = f'the last map is {H} x {W}, {built}: set img_size to the size of the images'
        _assert(self.height == H, message)
        _assert(self.width == W, message)
        return x.flatten(1)


class ClutterCNN2FC(ClutterCNN):
    """The same with two fully connected layers at the end, for images of one size.

    Args:
        widths: channels of the five convolutions.
        num_classes: 0 for no classifier.
        in_chans: image channels.
        hidden: width of the first fully connected layer.
        img_size: of the images.
        global_pool: '' without classes for the last map in place of the hidden layer's vector.
        drop_rate: dropout before the second.
        device: where to create the parameters.
        dtype: their type.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 128, 128),
        num_classes: int = 10,
        in_chans: int = 1,
        hidden: int = 256,
        img_size: int | tuple[int, int] = 40,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        dd = {'device': device, 'dtype': dtype}
        height, width = (side // 8 for side in to_2tuple(img_size))
        layers = nn.Sequential(
            FlattenOfOneSize(height, width),
            nn.Linear(widths[-1] * height * width, hidden, **dd),
            nn.ReLU(),
        )
        head = HiddenHead(layers, hidden, num_classes, global_pool, drop_rate, **dd)
        super().__init__(widths, num_classes, in_chans, drop_rate=drop_rate, head=head, **dd)


def _cfg(**kwargs: object) -> dict[str, object]:
    return {
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
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        'clutter_cnn.untrained': _cfg(),
        'clutter_cnn_2fc.untrained': _cfg(fixed_input_size=True),
    }
)


def _create(cls: type[ClutterCNN], variant: str, pretrained: bool, **kwargs: object) -> ClutterCNN:
    return build_model_with_cfg(
        cls,
        variant,
        pretrained,
        feature_cfg={'out_indices': (0, 1, 2, 3), 'feature_cls': 'getter'},
        **kwargs,
    )


@register_model
def clutter_cnn(pretrained: bool = False, **kwargs: object) -> ClutterCNN:
    """The convolutions of WARN's ablation study, for 40 x 40 grey images, and a linear layer."""
    return _create(ClutterCNN, 'clutter_cnn', pretrained, **kwargs)


@register_model
def clutter_cnn_2fc(pretrained: bool = False, **kwargs: object) -> ClutterCNN2FC:
    """The network of WARN's ablation study, with two fully connected layers, for such images."""
    return _create(ClutterCNN2FC, 'clutter_cnn_2fc', pretrained, **kwargs)
