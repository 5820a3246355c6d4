"""Wide residual networks for 32 x 32 images.

Zagoruyko and Komodakis, *Wide Residual Networks*, BMVC 2016, https://arxiv.org/abs/1605.07146: a
3x3 stem, three groups of n = (depth - 4) / 6 pre-activation basic blocks, widths 16 k, 32 k, 64 k,
optional dropout between the convolutions of a block (section 2.4). timm has the ImageNet form only.

The intermediates are ReLU(BN(.)) of each group's output, that is the first normalisation of the
next group and, after the last one, the final normalisation: what the WARN paper's official code
attends to, and what each next layer really reads.

Deviations: none. The official code of WARN (https://github.com/prlz77/attend-and-rectify) drops
whole channels in a block, where the WRN paper drops single values: ``block_drop_type='channel'``.
"""

from __future__ import annotations

import torch
from timm.layers import BatchNormAct2d, ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from torch import Tensor, nn

from fgplugins.networks.sequential_cnn import ClassifiedCNN

__all__ = ['CifarWideResNet']


DROPOUTS = {'element': nn.Dropout, 'channel': nn.Dropout2d}


class WideBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-(dropout)-conv with a shortcut, projected where the width changes."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, drop: nn.Module, **dd: object
    ) -> None:
        super().__init__()
        self.norm1 = BatchNormAct2d(in_channels, **dd)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False, **dd)
        self.norm2 = BatchNormAct2d(channels, **dd)
        self.drop = drop
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False, **dd)
        self.shortcut = (
            nn.Identity()
            if in_channels == channels
            else nn.Conv2d(in_channels, channels, 1, stride, bias=False, **dd)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.from_activated(x, self.norm1(x))

    def from_activated(self, x: Tensor, a: Tensor) -> Tensor:
        """The block's output from its input x and a = norm1(x)."""
        shortcut = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
        return shortcut + self.residual(a)

    def residual(self, a: Tensor) -> Tensor:
        return self.conv2(self.drop(self.norm2(self.conv1(a))))


class PreActBottleneck(WideBlock):
    """The three-convolution block of ResNet-164, a quarter as wide inside (He et al., 2016)."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, drop: nn.Module, **dd: object
    ) -> None:
        super().__init__(in_channels, channels, stride, drop, **dd)
        inner = channels // 4
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False, **dd)
        self.norm2 = BatchNormAct2d(inner, **dd)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False, **dd)
        self.norm3 = BatchNormAct2d(inner, **dd)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False, **dd)

    def residual(self, a: Tensor) -> Tensor:
        return self.conv3(self.norm3(self.conv2(self.drop(self.norm2(self.conv1(a))))))


class WideGroup(nn.Sequential):
    """n blocks; the caller activates the input of the first, since it may be a feature map."""

    def activate(self, x: Tensor) -> Tensor:
        return self[0].norm1(x)

    def from_activated(self, x: Tensor, a: Tensor) -> Tensor:
        x = self[0].from_activated(x, a)
        for block in self[1:]:
            x = block(x)
        return x


class CifarWideResNet(ClassifiedCNN):
    """WRN-depth-width with three feature maps at strides 1, 2 and 4.

    Args:
        depth: number of layers, 6 n + 4, or 9 n + 2 with bottleneck blocks.
        width: k, the widening factor.
        bottleneck: three-convolution blocks, groups of 64 k, 128 k and 256 k channels: the
            pre-activation ResNet-164 of He et al., *Identity Mappings in Deep Residual Networks*.
        num_classes: 0 for no classifier.
        in_chans: image channels.
        global_pool: timm's pooling name.
        drop_rate: dropout before the classifier.
        block_drop_rate: dropout between the convolutions of a block (the paper uses 0.3).
        block_drop_type: what it drops: each 'element' of a map by itself | whole 'channel's.
        device: where to create the parameters.
        dtype: their type.

    Raises:
        ValueError: for a depth that cannot be, or another type of dropout.
    """

    def __init__(
        self,
        depth: int = 28,
        width: int = 10,
        bottleneck: bool = False,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        block_drop_rate: float = 0.0,
        block_drop_type: str = 'element',
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        layers, other = (9, 2) if bottleneck else (6, 4)
        n = (depth - other) // layers
        if n < 1 or n * layers + other != depth:
            rule = '9 n + 2, as 164' if bottleneck else '6 n + 4, as 28 or 40'
            raise ValueError(f'CifarWideResNet: depth={depth}: must be {rule}')
        if block_drop_type not in DROPOUTS:
            raise ValueError(
                f"CifarWideResNet: block_drop_type={block_drop_type!r}: must be 'element' or "
                "'channel'"
            )
        dropout = DROPOUTS[block_drop_type]
        dd = {'device': device, 'dtype': dtype}
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False

        block, base = (PreActBottleneck, 64) if bottleneck else (WideBlock, 16)
        widths = [16, base * width, 2 * base * width, 4 * base * width]
        self.stem = nn.Conv2d(in_chans, widths[0], 3, padding=1, bias=False, **dd)
        self.stages = nn.ModuleList()
        for i, stride in enumerate((1, 2, 2)):
            inside, outside = widths[i], widths[i + 1]
            group = [block(inside, outside, stride, dropout(block_drop_rate), **dd)]
            group += [
                block(outside, outside, 1, dropout(block_drop_rate), **dd) for _ in range(n - 1)
            ]
            self.stages.append(WideGroup(*group))
        self.norm = BatchNormAct2d(widths[3], **dd)
        self.feature_info = [
            {'num_chs': widths[1], 'reduction': 1, 'module': 'stages.1.0.norm1'},
            {'num_chs': widths[2], 'reduction': 2, 'module': 'stages.2.0.norm1'},
            {'num_chs': widths[3], 'reduction': 4, 'module': 'norm'},
        ]
        self.num_features = self.head_hidden_size = widths[3]
        self.head = ClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """How timm groups the parameters by depth."""
        block = r'^stages\.(\d+)' if coarse else r'^stages\.(\d+)\.(\d+)'
        return {'stem': r'^stem', 'blocks': [(block, None), (r'^norm', (99999,))]}

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The final map and the chosen ones of the three (timm's interface).

        ``norm`` changes nothing: every intermediate is normalised by the layer that reads it.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f'CifarWideResNet gives NCHW maps, not output_fmt={output_fmt!r}')
        take, last = feature_take_indices(len(self.feature_info), indices)
        x = self.stem(x)
        a = self.stages[0].activate(x)
        intermediates = []
        for i, group in enumerate(self.stages):
            if stop_early and i > last:
                break
            if self.grad_checkpointing and not torch.jit.is_scripting():
                x = checkpoint(group.from_activated, x, a)
            else:
                x = group.from_activated(x, a)
            a = self.stages[i + 1].activate(x) if i + 1 < len(self.stages) else self.norm(x)
            if i in take:
                intermediates.append(a)
        return intermediates if intermediates_only else (a, intermediates)

    def keep_stages(self, last: int) -> None:
        """Drop the stages above map number ``last``, but not the normalisation that makes it."""
        self.norm = self.stages[last + 1][0].norm1
        super().keep_stages(last)


def cifar_cfg(**kwargs: object) -> dict[str, object]:
    """Timm's settings of a network for CIFAR; mean and deviation of CIFAR-10's training images."""
    return {
        'num_classes': 10,
        'input_size': (3, 32, 32),
        'pool_size': (8, 8),
        'crop_pct': 1.0,
        'interpolation': 'bilinear',
        'mean': (0.4914, 0.4822, 0.4465),
        'std': (0.2470, 0.2435, 0.2616),
        'first_conv': 'stem',
        'classifier': 'head.fc',
        'license': 'apache-2.0',
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        'wrn28_10.untrained': cifar_cfg(),
        'wrn40_10.untrained': cifar_cfg(),
        'preact_resnet164.untrained': cifar_cfg(),
    }
)


def _create(variant: str, pretrained: bool, **kwargs: object) -> CifarWideResNet:
    return build_model_with_cfg(
        CifarWideResNet,
        variant,
        pretrained,
        feature_cfg={'out_indices': (0, 1, 2), 'feature_cls': 'getter'},
        **kwargs,
    )


@register_model
def wrn28_10(pretrained: bool = False, **kwargs: object) -> CifarWideResNet:
    """WRN-28-10: 36.5 M parameters."""
    return _create('wrn28_10', pretrained, **{'depth': 28, 'width': 10, **kwargs})


@register_model
def wrn40_10(pretrained: bool = False, **kwargs: object) -> CifarWideResNet:
    """WRN-40-10: 55.8 M parameters."""
    return _create('wrn40_10', pretrained, **{'depth': 40, 'width': 10, **kwargs})


@register_model
def preact_resnet164(pretrained: bool = False, **kwargs: object) -> CifarWideResNet:
    """Pre-activation ResNet-164 for 32 x 32 images: 1.7 M parameters."""
    arguments = {'depth': 164, 'width': 1, 'bottleneck': True}
    return _create('preact_resnet164', pretrained, **{**arguments, **kwargs})
