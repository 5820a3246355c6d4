"""ResNet-110 for CIFAR: its size, its blocks by the paper's words, and timm's interface."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgplugins  # noqa: F401
from fgplugins.networks.cifar_resnet import BasicBlock

SMALL = {'depth': 8, 'num_classes': 4}


@pytest.mark.parametrize(
    ('depth', 'classes', 'count'),
    [(110, 10, 1_727_962), (110, 100, 1_733_812), (20, 10, 269_722), (56, 10, 853_018)],
)
def test_parameters(depth: int, classes: int, count: int) -> None:
    """The paper's Table 6: 0.27 M, 0.85 M and 1.7 M."""
    model = timm.create_model('resnet110', depth=depth, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == depth


def test_depth_is_checked() -> None:
    with pytest.raises(ValueError, match='depth=111: must be 6 n'):
        timm.create_model('resnet110', depth=111)


def naive_block(block: BasicBlock, x: Tensor) -> Tensor:
    """Section 3.3: the shortcut performs identity, with extra zero entries for new dimensions."""
    y = block.norm1(block.conv1(x)).clamp(min=0)
    y = block.norm2(block.conv2(y))
    N, C, H, W = x.shape
    for n in range(N):
        for c in range(C):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    y[n, c, i, j] += x[n, c, i * H // y.shape[2], j * W // y.shape[3]]
    return y.clamp(min=0)


@pytest.mark.parametrize(('outside', 'stride'), [(3, 1), (5, 2)])
@torch.no_grad()
def test_block(outside: int, stride: int) -> None:
    block = BasicBlock(3, outside, stride).double().eval()
    for norm in (block.norm1, block.norm2):
        norm.running_mean.normal_()
        norm.weight.normal_()
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(block(x), naive_block(block, x), rtol=0, atol=1e-12)


def test_maps_are_what_the_next_stage_reads() -> None:
    model = timm.create_model('resnet110', **SMALL).eval()
    x = torch.randn(2, 3, 32, 32)
    read = []
    for stage in list(model.stages)[1:]:
        stage[0].register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    final, maps = model.forward_intermediates(x)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert maps[0] is read[0] and maps[1] is read[1] and maps[2] is final
    assert [info['reduction'] for info in model.feature_info] == [1, 2, 4]
    (gradient,) = torch.autograd.grad(model.forward_head(final).sum(), maps[1])
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(model(x), model.head.fc(F.relu(final).mean(dim=(2, 3))))


def test_features_only_and_pruning() -> None:
    model = timm.create_model('resnet110', **SMALL).eval()
    x = torch.randn(2, 3, 32, 48)
    maps = model.forward_intermediates(x, intermediates_only=True)
    getter = timm.create_model('resnet110', depth=8, features_only=True, out_indices=(0, 2)).eval()
    getter.model.load_state_dict(model.state_dict(), strict=False)
    for ours, theirs in zip(getter(x), (maps[0], maps[2]), strict=True):
        assert torch.equal(ours, theirs)
    assert getter.feature_info.channels() == [16, 64]

    assert model.prune_intermediate_layers([0, 1]) == [0, 1]
    assert len(model.stages) == 2 and model.num_features == 32
    assert torch.equal(model.forward_intermediates(x, [1], intermediates_only=True)[0], maps[1])
    with pytest.raises(ValueError, match="output_fmt='NHWC'"):
        model.forward_intermediates(x, output_fmt='NHWC')


def test_checkpointing_and_groups() -> None:
    model = timm.create_model('resnet110', **SMALL)
    x = torch.randn(2, 3, 16, 16)
    plain = torch.autograd.grad(model.eval()(x).sum(), model.stages[0][0].conv.weight)[0]
    model.set_grad_checkpointing()
    again = torch.autograd.grad(model(x).sum(), model.stages[0][0].conv.weight)[0]
    torch.testing.assert_close(plain, again)

    matcher = model.group_matcher()
    groups = timm.models.group_parameters(model, matcher)
    assert groups[0] == [k for k in model.state_dict() if k.startswith('stages.0.0.')][:3]
    assert len(groups) == 1 + 3 + 1  # stem, one block a stage, classifier
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
