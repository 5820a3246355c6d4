"""The MMPretrain side: registry, heads, classifier, hooks, and agreement with the timm side."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

import random
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import timm
import torch
from helpers import assert_same_clan
from helpers import classifier as build_classifier
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, HOOKS, MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from torch import nn

import fgplugins
import fgplugins.zoo_mmpretrain as room
from fgplugins.methods import NoClassMap, get_method
from fgplugins.zoo_mmpretrain.backbone_maps import probe_network
from fgplugins.zoo_mmpretrain.hooks import EpochSeedHook
from fgplugins.zoo_mmpretrain.installation import check_installation
from fgplugins.zoo_timm.task import LossStep

init_default_scope('mmpretrain')

CNN = dict(
    type='TIMMBackbone', model_name='clutter_cnn', features_only=True, out_indices=(0, 1, 2, 3),
    in_channels=1,
)  # fmt: skip


def classifier(head: dict, backbone: dict | None = None) -> nn.Module:
    return build_classifier({'num_classes': 5, **head}, backbone or CNN)


@pytest.mark.parametrize('scope', ['', 'fgplugins.'])
def test_both_names_resolve(scope: str) -> None:
    for method in fgplugins.list_methods():
        name = f'{get_method(method).__name__}Head'
        assert MODELS.get(scope + name).method_class is get_method(method)
    assert MODELS.get(f'{scope}MaskDiversityLoss') is room.MaskDiversityLoss
    assert DATASETS.get(f'{scope}ClutteredDigits') is room.ClutteredDigits
    assert HOOKS.get(f'{scope}EpochSeedHook') is room.EpochSeedHook
    assert TRANSFORMS.get(f'{scope}LoadImage') is room.LoadImage


TIMMS = (
    'clutter_cnn', 'resnet10t', 'test_efficientnet', 'test_convnext', 'test_vit', 'resnetv2_18',
)  # fmt: skip


@pytest.mark.parametrize('backbone', TIMMS)
@pytest.mark.parametrize('method', fgplugins.list_methods())
def test_both_zoos_give_the_same_scores(method: str, backbone: str) -> None:
    if method == 'siou' and backbone == 'test_vit':
        pytest.skip('refused: its maps are copies')
    taps, name = get_method(method).default_taps, f'{get_method(method).__name__}Head'
    channels = 1 if backbone == 'clutter_cnn' else 3
    one = timm.create_model(method, backbone=backbone, num_classes=5, in_chans=channels).eval()
    settings = dict(type='TimmNetwork', model_name=backbone, in_channels=channels)
    other = classifier(dict(type=name, taps=taps), settings).eval()
    assert other.backbone.reading == one.reading
    other.backbone.timm_model.load_state_dict(one.backbone.state_dict())
    other.head.method.load_state_dict(one.method.state_dict())
    x = torch.randn(2, channels, *(one.fixed_size or (64, 64)))
    torch.testing.assert_close(one(x), other(x))
    if backbone == 'test_vit' and method in ('gap', 'art'):
        for look in (one.attention_maps, other.attention_maps):
            with pytest.raises(NoClassMap, match='class token'):
                look(x)
    else:
        for a, b in zip(one.attention_maps(x), other.attention_maps(x), strict=True):
            torch.testing.assert_close(a, b)
    target = torch.tensor([1, 4])
    samples = [DataSample().set_gt_label(int(label)) for label in target]
    step = LossStep(one)
    if step.regularizer is not None:
        other.second_stream.backbone.timm_model.load_state_dict(step.second.state_dict())
        other.regularizer.load_state_dict(step.regularizer.state_dict())
    losses = other(x, samples, mode='loss')
    terms = step(x, target)
    assert set(losses) == {f'loss_{key}' for key in terms}
    for key in terms:
        torch.testing.assert_close(losses[f'loss_{key}'], terms[key])
    predictions = other(x, mode='predict')
    assert [int(p.pred_label) for p in predictions] == one(x).argmax(dim=1).tolist()


def test_mixed_labels_reach_the_loss() -> None:
    model = classifier(dict(type='WARNHead', taps=4)).eval()
    x, scores = torch.randn(2, 1, 40, 40), torch.rand(2, 5).softmax(dim=1)
    samples = [DataSample().set_gt_score(score) for score in scores]
    expected = -(scores * model(x)).sum(dim=1).mean()
    torch.testing.assert_close(model(x, samples, mode='loss')['loss_nll'], expected)


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        (dict(type='ResNet', depth=18, out_indices=(1, 2, 3)), [128, 256, 512]),
        (dict(type='VGG', depth=11, out_indices=(3, 4), with_last_pool=True), [512, 512]),
        (dict(type='ConvNeXt', arch='atto', out_indices=(2, 3), gap_before_final_norm=False), None),
        (dict(type='SwinTransformer', arch='tiny', out_indices=(1, 2, 3)), [192, 384, 768]),
        (dict(type='MobileNetV2', out_indices=(6, 7)), [320, 1280]),
        (CNN, [16, 32, 64, 128]),
    ],
)
def test_backbones_say_what_they_give(backbone: dict, channels: list[int] | None) -> None:
    module = MODELS.build(backbone)
    module.train()  # returns None in MMPretrain
    states = [m.training for m in module.modules()]
    maps, _ = probe_network(module, image_channels=backbone.get('in_channels', 3))
    found = [m.shape[1] for m in maps]
    assert channels is None or found == channels
    assert [m.training for m in module.modules()] == states
    model = classifier(dict(type='WARNHead', taps=len(found)), backbone)
    assert list(model.head.method.in_channels) == found


@pytest.mark.parametrize(
    ('head', 'backbone', 'message'),
    [
        (dict(type='WARNHead', taps=5), CNN, r'taps=5 feature maps, TIMMBackbone gives 4'),
        (dict(type='WARNHead', taps=9), dict(type='ResNet', depth=18), r'ResNet gives 1 with chan'),
        (dict(type='WARNHead', in_channels=[9, 128]), CNN, r'set in_channels=\[64, 128\]'),
        (dict(type='WARNHead', heads=0), CNN, r'heads=0'),
        (
            dict(type='GAPHead'),
            dict(type='VisionTransformer', arch='deit-tiny'),
            'not maps of shape',
        ),
    ],
)
def test_wrong_wiring_is_named(head: dict, backbone: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(head, backbone)


def test_plain_classifier_needs_the_channels_typed() -> None:
    def build(**head: object) -> nn.Module:
        head = dict(type='WARNHead', num_classes=5, **head)
        return MODELS.build(dict(type='ImageClassifier', backbone=CNN, head=head))

    assert build(in_channels=[64, 128]).eval()(torch.randn(1, 1, 40, 40)).shape == (1, 5)
    with pytest.raises(ValueError, match="type='FineGrainedClassifier', which asks the backbone"):
        build()
    with pytest.raises(ValueError, match='taps=3, but in_channels'):
        build(in_channels=[64, 128], taps=3)
    with pytest.raises(ValueError, match=r'in_channels=\[7, 128\], the backbone gives'):
        build(in_channels=[7, 128])(torch.randn(1, 1, 40, 40))


def test_the_zoos_own_heads_still_work() -> None:
    model = MODELS.build(
        dict(
            type='FineGrainedClassifier',
            backbone=dict(type='ResNet', depth=18),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=512),
        )
    )
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize('spatial', [True, False])
@pytest.mark.parametrize('levels', [(2, 3), (1, 2, 3)])
def test_clan_as_neck_and_head_is_the_method(levels: tuple[int, ...], spatial: bool) -> None:
    backbone = dict(type='ResNet', depth=18, out_indices=levels)
    channels = [128, 256, 512][-len(levels) :]
    switches = {} if spatial else dict(spatial=False)
    of_head = {**switches, 'average': 'logits' if spatial else 'probabilities'}
    whole = classifier(dict(type='CLANHead', taps=len(levels), **of_head), backbone).eval()
    neck = dict(type='CLANNeck', in_channels=channels, **switches)
    widths = (*channels, 512 * (len(levels) - 1)) if spatial else tuple(channels)
    head = dict(type='MultiBranchHead', num_classes=5, in_channels=widths, **of_head)
    parts = MODELS.build(
        dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)
    ).eval()
    assert parts.neck.out_channels == widths
    assert_same_clan(parts, whole)
    maps = [torch.randn(1, C, 4, 4) for C in widths]
    with pytest.raises(ValueError, match=rf'MultiBranchHead has .*set spatial={spatial} in CLAN'):
        parts.head(tuple(maps[1:]))
    with pytest.raises(ValueError, match=r'CLANNeck was built for in_channels'):
        parts.neck([torch.randn(1, 7, 4, 4)])


def test_mask_diversity_loss() -> None:
    masks = torch.rand(2, 3, 4, 4).flatten(2).softmax(dim=2).view(2, 3, 4, 4)
    from fgplugins.methods.warn import mask_diversity

    loss = MODELS.build(dict(type='MaskDiversityLoss', loss_weight=2.0))
    torch.testing.assert_close(loss(masks), 2 * mask_diversity(masks))


def test_epoch_seeds_depend_on_seed_and_epoch_only() -> None:
    def draw(seed: int, epoch: int) -> tuple:
        EpochSeedHook().before_train_epoch(SimpleNamespace(seed=seed, epoch=epoch))
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    assert draw(0, 3) == draw(0, 3)
    assert len({draw(0, 3), draw(0, 4), draw(1, 3)}) == 3


def installed(*names: str) -> None:
    def find(name: str) -> str:
        if name in names:
            return '1.0'
        raise PackageNotFoundError(name)

    check_installation(find)


def test_distributions() -> None:
    forks = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmpretrain')
    originals = ('mmengine', 'mmcv-lite', 'mmpretrain')
    installed(*forks)
    installed(*originals)
    with pytest.raises(ImportError, match=r'both are installed: .*pip uninstall -y'):
        installed(*forks, 'mmengine')
    with pytest.raises(ImportError, match=r'nothing of it.*fgplugins\[mm\]'):
        installed()
    with pytest.raises(ImportError, match=r'only mmengine 1\.0'):
        installed('mmengine')
