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
from timm.layers import ClassifierHead, get_device_dtype
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from torch import Tensor, nn

__all__ = ['ClutterCNN']


class ClutterCNN(nn.Module):
    """Five convolutions, four feature maps: after each pooling (strides 2, 4, 8) and at the end.

    Args:
        widths: channels of the five convolutions.
        num_classes: 0 for no classifier.
        in_chans: image channels.
        global_pool: timm's pooling name.
        drop_rate: dropout before the classifier.
        device: where to create the parameters.
        dtype: their type.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 128, 128),
        num_classes: int = 10,
        in_chans: int = 1,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(widths) != 5:
            raise ValueError(f'ClutterCNN: widths={list(widths)}: needs five numbers')
        dd = {'device': device, 'dtype': dtype}
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False

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
        self.stages = nn.Sequential(
            pooled(in_chans, widths[0]),
            pooled(widths[0], widths[1]),
            pooled(widths[1], widths[2]),
            last,
        )
        self.feature_info = [
            {'num_chs': c, 'reduction': r, 'module': f'stages.{i}'}
            for i, (c, r) in enumerate(
                zip((widths[0], widths[1], widths[2], widths[4]), (2, 4, 8, 8), strict=True)
            )
        ]
        self.num_features = self.head_hidden_size = widths[4]
        self.head = ClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity='relu')  # "He et al."
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """How timm groups the parameters by depth."""
        return {'stem': r'^stages\.0\.', 'blocks': r'^stages\.(\d+)'}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute a stage's activations in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; 0 classes removes it."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool, **get_device_dtype(self))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The final map and the chosen ones of the four (timm's interface)."""
        if output_fmt != 'NCHW':
            raise ValueError(f'ClutterCNN gives NCHW maps, not output_fmt={output_fmt!r}')
        take, last = feature_take_indices(len(self.feature_info), indices)
        intermediates = []
        for i, stage in enumerate(self.stages):
            if stop_early and i > last:
                break
            if self.grad_checkpointing and not torch.jit.is_scripting():
                x = checkpoint(stage, x)
            else:
                x = stage(x)
            if i in take:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop what the chosen maps do not need (timm's interface)."""
        take, last = feature_take_indices(len(self.feature_info), indices)
        if last + 1 < len(self.stages):
            self.stages = self.stages[: last + 1]
            self.num_features = self.head_hidden_size = self.feature_info[last]['num_chs']
            prune_head = True
        if prune_head:
            self.reset_classifier(0, '')
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        """The final map (N, C, H / 8, W / 8)."""
        return self.forward_intermediates(x, indices=1)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


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
