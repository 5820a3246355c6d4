"""A plain sequence of stages as a timm model: each stage's output is a feature map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import ClassifierHead, get_device_dtype
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from torch import Tensor, nn

__all__ = ['ClassifiedCNN', 'HiddenHead', 'SequentialCNN']


class ClassifiedCNN(nn.Module):
    """What timm asks of a network whose ``head`` classifies its final map."""

    feature_info: list[dict[str, object]]
    stages: nn.Sequential
    head: nn.Module
    num_features: int
    head_hidden_size: int
    num_classes: int

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the stages' activations in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; 0 classes removes it."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool, **get_device_dtype(self))

    def forward_features(self, x: Tensor) -> Tensor:
        """The final map (N, C, H, W)."""
        return self.forward_intermediates(x, indices=1)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def keep_stages(self, last: int) -> None:
        """Drop the stages above map number ``last``."""
        self.stages = self.stages[: last + 1]

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop what the chosen maps do not need (timm's interface)."""
        take, last = feature_take_indices(len(self.feature_info), indices)
        if last + 1 < len(self.stages):
            self.keep_stages(last)
        if prune_head or last + 1 < len(self.feature_info):
            # the classifier, sized for another map, goes
            self.num_features = self.head_hidden_size = self.feature_info[last]['num_chs']
            self.reset_classifier(0, '')
        return take


class HiddenHead(nn.Module):
    """Layers of the network's own between its last map and a linear classifier.

    Args:
        hidden: map (N, C, H, W) -> embedding (N, D); of one size of maps, or of any.
        channels: D.
        num_classes: 0 for no classifier.
        global_pool: '' leaves ``hidden`` out: without classes, the map is handed on as it is.
        drop_rate: dropout before the classifier.
        device: where to create the classifier.
        dtype: its type.

    Raises:
        ValueError: for another pooling, or '' with classes.
    """

    def __init__(
        self,
        hidden: nn.Module,
        channels: int,
        num_classes: int,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.hidden, self.channels = hidden, channels
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes, global_pool, device=device, dtype=dtype)

    def reset(self, num_classes: int, pool_type: str | None = None, **dd: object) -> None:
        """Replace the classifier; see the class."""
        left_out = pool_type == '' or isinstance(self.hidden, nn.Identity)
        if pool_type or (left_out and num_classes):
            raise ValueError(
                f'global_pool={pool_type!r}, num_classes={num_classes}: this network classifies '
                'by fully connected layers of its own: leave global_pool out'
            )
        if left_out:
            self.hidden = nn.Identity().train(self.training)
        fc = nn.Linear(self.channels, num_classes, **dd) if num_classes else nn.Identity()
        self.fc = fc.train(self.training)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.hidden(x))
        return x if pre_logits else self.fc(x)


class SequentialCNN(ClassifiedCNN):
    """Stages one after the other, and a head: average pooling and a linear classifier, or its own.

    Args:
        stages: the stages.
        channels: of each stage's output.
        reductions: stride of each stage's output.
        num_classes: 0 for no classifier.
        in_chans: image channels.
        global_pool: timm's pooling name, where the head is not its own.
        drop_rate: dropout before the classifier.
        head: the head, in place of average pooling and a linear classifier.
        device: where to create the classifier.
        dtype: its type.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        reductions: Sequence[int],
        num_classes: int,
        in_chans: int,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        head: HiddenHead | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        self.stages = nn.Sequential(*stages)
        self.feature_info = [
            {'num_chs': c, 'reduction': r, 'module': f'stages.{i}'}
            for i, (c, r) in enumerate(zip(channels, reductions, strict=True))
        ]
        self.num_features = self.head_hidden_size = channels[-1]
        if head is None:
            head = ClassifierHead(
                channels[-1], num_classes, global_pool, drop_rate, device=device, dtype=dtype
            )
        else:
            self.head_hidden_size = head.channels
        self.head = head
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """How timm groups the parameters by depth."""
        return {'stem': r'^stages\.0\.', 'blocks': r'^stages\.(\d+)'}

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The final map and the chosen ones (timm's interface)."""
        if output_fmt != 'NCHW':
            raise ValueError(
                f'{type(self).__name__} gives NCHW maps, not output_fmt={output_fmt!r}'
            )
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
