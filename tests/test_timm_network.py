"""Networks with their own heads in MMPretrain: timm's, and the zoo's by their necks."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('mmpretrain')

import timm
import torch
from helpers import assert_same_clan
from helpers import classifier as build_classifier
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import fgplugins
import fgplugins.zoo_mmpretrain
from fgplugins.analysis.coverage import move_from_start
from fgplugins.errors import UserError
from fgplugins.methods import get_method
from fgplugins.networks.classifiers import ClassifierPlace
from fgplugins.zoo_mmpretrain.deploy import deploy
from fgplugins.zoo_mmpretrain.running.initial_weights import set_pretrained
from fgplugins.zoo_mmpretrain.running.timm_backbones import set_backbone

init_default_scope('mmpretrain')

NETWORKS = ('resnet10t', 'test_efficientnet', 'test_convnext', 'test_vit', 'levit_128s', 'vgg11')
NARROW = {'vgg11': {'mlp_ratio': 1 / 64}}  # the same layers, of a hundredth of the weights


def images(network: nn.Module, N: int = 2) -> Tensor:
    cfg = network.pretrained_cfg
    side = cfg['input_size'][1] if cfg.get('fixed_input_size') else 64
    return torch.randn(N, cfg['input_size'][0], side, side)


@pytest.mark.parametrize('name', NETWORKS)
def test_gives_timms_scores_from_a_file_of_weights(name: str, tmp_path: Path) -> None:
    plain = timm.create_model(name, num_classes=5, **NARROW.get(name, {})).eval()
    move_from_start(plain)
    file = str(tmp_path / 'plain.pth')
    torch.save(plain.state_dict(), file)
    settings = dict(
        type='TimmNetwork', model_name=name, **NARROW.get(name, {}), checkpoint_path=file
    )
    model = build_classifier(dict(type='GAPHead', num_classes=5), settings).eval()
    model.init_weights()  # as the runner does
    x = images(plain)
    with torch.no_grad():
        assert torch.equal(model(x), plain(x))
    other = build_classifier(
        dict(type='GAPHead', num_classes=7), settings
    )  # without its classifier
    assert other(x).shape == (2, 7)


@pytest.mark.parametrize('name', NETWORKS)
def test_stands_in_mmpretrains_own_classifier(name: str) -> None:
    """What it gives last is what the network's own classifier reads."""
    plain = timm.create_model(name, num_classes=5, **NARROW.get(name, {})).eval()
    move_from_start(plain)
    backbone = MODELS.build(
        dict(type='TimmNetwork', model_name=name, **NARROW.get(name, {}), num_classes=5)
    )
    D = backbone(images(plain))[-1].shape[1]
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='TimmNetwork', model_name=name, **NARROW.get(name, {})),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=D),
        )
    ).eval()
    network = model.backbone
    assert network.classifier is None
    network.timm_model.load_state_dict(plain.state_dict(), strict=False)
    place = backbone.place
    assert isinstance(place, ClassifierPlace)
    model.head.fc = place.take(plain)
    x = images(plain)
    with torch.no_grad():
        scores = model.head.fc(plain(x))
        torch.testing.assert_close(model(x), scores)
    samples = [DataSample().set_gt_label(label) for label in (1, 4)]
    sum(model(x, samples, mode='loss').values()).backward()


@pytest.mark.parametrize('name', ['test_convnext', 'test_efficientnet'])
def test_the_neck_passes_the_embedding_by(name: str) -> None:
    backbone = dict(type='TimmNetwork', model_name=name, **NARROW.get(name, {}), taps=2)
    whole = build_classifier(dict(type='CLANHead', num_classes=5), backbone).eval()
    channels = whole.backbone.channels
    widths = (channels[0], whole.head.method.head_channels, channels[1])
    parts = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='CLANNeck', in_channels=channels),
            head=dict(type='MultiBranchHead', num_classes=5, in_channels=widths),
        )
    ).eval()
    assert_same_clan(parts, whole)


@pytest.mark.parametrize('name', ['resnet10t', 'test_efficientnet', 'test_convnext', 'vgg11'])
@pytest.mark.parametrize('method', ['gap', 'siou', 'art'])
def test_is_deployed_as_timms_own_network(method: str, name: str) -> None:
    cls = get_method(method).__name__
    backbone = dict(type='TimmNetwork', model_name=name, **NARROW.get(name, {}))
    model_cfg = dict(
        type='FineGrainedClassifier',
        backbone=backbone,
        head=dict(type=f'{cls}Head', num_classes=5),
        deployed=True,
    )
    model = MODELS.build(ConfigDict(model_cfg)).eval()
    move_from_start(model)
    shipped, cfg = deploy(model, Config(dict(model=model_cfg)), (3, 64, 64))
    assert cfg.model.type == 'TimmClassifier' and cfg.model.model_name == name
    plain = timm.create_model(name, num_classes=5, **NARROW.get(name, {})).eval()
    plain.load_state_dict(shipped.state_dict())  # key for key
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(x), model(x))


# --------------------------------------------------------------------------- the zoo's own configs

ZOO = {
    'resnet/resnet50_8xb8_cub.py': {},
    'mobilenet_v2/mobilenet-v2_8xb32_in1k.py': {},
    'efficientnet/efficientnet-b0_8xb32_in1k.py': {},
    'swin_transformer/swin-tiny_16xb64_in1k.py': {'siou': 'copy'},
    'regnet/regnetx-400mf_8xb128_in1k.py': {},
    'densenet/densenet121_4xb256_in1k.py': {},
    'hrnet/hrnet-w18_4xb32_in1k.py': {},
    'res2net/res2net50-w14-s8_8xb32_in1k.py': {},
    'shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py': {},
    'mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py': {},
    'repvgg/repvgg-A0_8xb32_in1k.py': {},
    'cspnet/cspdarknet50_8xb32_in1k.py': {},
    'seresnet/seresnet50_8xb32_in1k.py': {},
    'poolformer/poolformer-s12_32xb128_in1k.py': {'siou': 'copy'},
}
QUICK = {
    ('resnet/resnet50_8xb8_cub.py', 'clan'),
    *(('mobilenet_v2/mobilenet-v2_8xb32_in1k.py', m) for m in fgplugins.list_methods()),
    ('hrnet/hrnet-w18_4xb32_in1k.py', 'gap'),
    ('mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py', 'warn'),
}
CASES = [
    pytest.param(file, method, marks=[] if (file, method) in QUICK else [pytest.mark.slow])
    for file in ZOO
    for method in fgplugins.list_methods()
]


@pytest.mark.filterwarnings('ignore:In MMCV')  # of its activation in MobileNetV3
@pytest.mark.parametrize(('file', 'method'), CASES)
def test_a_config_of_the_zoo_inherited_as_it_is(file: str, method: str, tmp_path: Path) -> None:
    """With the neck, and as few levels, as it has."""
    cls = get_method(method).__name__
    mine = tmp_path / 'mine.py'
    mine.write_text(
        f"_base_ = 'mmpretrain::{file}'\n"
        "model = dict(type='FineGrainedClassifier',\n"
        f"             head=dict(_delete_=True, type='{cls}Head', num_classes=5))\n"
    )
    cfg = Config.fromfile(mine)
    if method in ZOO[file]:
        with pytest.raises(ValueError, match=ZOO[file][method]):
            MODELS.build(cfg.model)
        return
    model = MODELS.build(cfg.model)
    side = 224 if 'swin' in file else 64
    x = torch.randn(2, 3, side, side)
    samples = [DataSample().set_gt_label(label) for label in (0, 4)]
    model.train()
    terms = model(x, samples, mode='loss')
    sum(v for name, v in terms.items() if 'loss' in name).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    model.eval()
    with torch.no_grad():
        scores = model(x)
    assert scores.shape == (2, 5) and scores.isfinite().all()
    if method != 'gap':
        return
    plain = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=cfg.model.backbone,
            neck=cfg.model.get('neck'),
            head=dict(
                type='LinearClsHead', num_classes=5, in_channels=model.head.method.head_channels
            ),
        )
    ).eval()
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith('head.')}
    for name, value in model.head.method.classifier.state_dict().items():
        weights[f'head.fc.{name}'] = value
    plain.load_state_dict(weights)
    with torch.no_grad():
        assert torch.equal(plain(x), scores)


# ---------------------------------------------------------------------------------- --backbone NAME


def config(name: str) -> Config:
    return Config.fromfile(Path(__file__).parent.parent / 'configs' / f'{name}.py')


def test_another_network_in_a_config() -> None:
    cfg = config('clan_r50_cub')
    notes = set_backbone(cfg, 'test_efficientnet')
    assert cfg.model.backbone == dict(type='TimmNetwork', model_name='test_efficientnet')
    assert cfg.pretrained_weights is None
    expected = [round(255 * v, 3) for v in timm.get_pretrained_cfg('test_efficientnet').mean]
    assert list(cfg.data_preprocessor.mean) == expected
    assert notes == []  # the config's own colours
    (note,) = set_backbone(config('clan_r50_cub'), 'tf_efficientnet_lite0')
    assert note.startswith("tf_efficientnet_lite0's own normalisation of colours: mean 127.5, ")
    assert (
        cfg.train_dataloader.dataset.pipeline
        == config('clan_r50_cub').train_dataloader.dataset['pipeline']
    )
    model = MODELS.build(cfg.model)
    assert model.backbone.channels == [48, 256]


def test_a_network_of_one_size_gets_images_of_it() -> None:
    cfg = config('art_mobilenetv2_cub')
    notes = set_backbone(cfg, 'vit_tiny_patch16_224')
    for split in ('train', 'val', 'test'):
        steps = cfg[f'{split}_dataloader'].dataset.pipeline
        resize, crop = (s for s in steps if s['type'] in ('Resize', 'RandomCrop', 'CenterCrop'))
        assert tuple(resize['scale']) == (258, 258) and crop['crop_size'] == 224
    assert 'view_size' not in cfg.model.head
    assert any('images of 224 x 224 in place of 160 x 160' in note for note in notes)
    assert any('mean 127.5, 127.5, 127.5, deviation 127.5' in note for note in notes)


@pytest.mark.parametrize(
    ('name', 'config_name', 'message'),
    [
        ('resnet19', 'clan_r50_cub', "--backbone 'resnet19' is not a timm model; did you mean"),
        ('clan_resnet50', 'clan_r50_cub', 'has a method on top already'),
    ],
)
def test_wrong_names_are_refused(name: str, config_name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        set_backbone(config(config_name), name)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(model_name='resnet19'), "model_name='resnet19' is not a timm model"),
        (dict(model_name='resnet10t', levels=(9,)), r'levels=\[9\]: resnet10t has 5 maps'),
        (dict(model_name='resnet10t', levels=(2,), head='network'), 'has its head above level 4'),
        (dict(model_name='resnet10t', head='own'), "head='own': must be 'network' or 'mean'"),
        (dict(model_name='resnet10t', out_indices=(3,)), 'TimmNetwork takes levels'),
        (dict(model_name='gap'), 'has a method on top already'),
        (dict(model_name='resnet10t', checkpoint_path='no.pth'), "checkpoint_path='no.pth' is not"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build_classifier(dict(type='GAPHead', num_classes=5), dict(type='TimmNetwork', **settings))


def test_levels_below_the_head_are_said_aloud() -> None:
    settings = dict(type='TimmNetwork', model_name='resnet10t', levels=(2,))
    with pytest.warns(UserWarning, match=r"head='mean'.*resnet10t has its head above level 4"):
        model = build_classifier(dict(type='GAPHead', num_classes=5), settings)
    assert model.head.method.in_channels == (128,)


def test_weights_of_a_model_with_a_method_start_a_network(tmp_path: Path) -> None:
    """Of timm's kind, whose names have no ``timm_model`` in them."""
    theirs = timm.create_model('warn', backbone='test_efficientnet', num_classes=3)
    file = str(tmp_path / 'theirs.pth')
    torch.save(theirs.state_dict(), file)
    cfg = config('gap_mobilenetv2_cub')
    set_backbone(cfg, 'test_efficientnet')
    assert set_pretrained(cfg, file) is None
    network = MODELS.build(cfg.model).backbone.timm_model.state_dict()
    assert all(torch.equal(v, network[k]) for k, v in theirs.backbone.state_dict().items())


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (
            dict(
                type='FineGrainedClassifier',
                backbone=dict(type='TimmNetwork', model_name='resnet10t', num_classes=7),
                head=dict(type='GAPHead', num_classes=5),
            ),
            'model.backbone.num_classes=7, model.head.num_classes=5: leave',
        ),
        (
            dict(
                type='FineGrainedClassifier',
                backbone=dict(type='TimmNetwork', model_name='resnet10t', taps=2),
                head=dict(type='WARNHead', num_classes=5),
            ),
            'give more levels .taps or levels of the backbone.',
        ),
        (
            dict(
                type='ImageClassifier',
                backbone=dict(type='TimmNetwork', model_name='test_efficientnet', taps=3),
                head=dict(type='WARNHead', num_classes=5, in_channels=(32, 48, 256)),
            ),
            'set head.embedding_channels=256, or leave it out by backbone.embedding=False',
        ),
    ],
)
def test_what_does_not_fit_together_is_named(model: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS.build(model)(torch.randn(1, 3, 64, 64))
