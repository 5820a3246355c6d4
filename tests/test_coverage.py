"""Backbones under methods: a part of the coverage report, and (slow) all of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from fgplugins.analysis import coverage
from fgplugins.methods import get_method, list_methods

TOOL = Path(__file__).parent.parent / 'tools' / 'coverage.py'
# one small backbone of MMPretrain for each way of giving maps: stages, stages with normalised
# copies, tokens of one size of images
MMPRETRAIN = ['ShuffleNetV2', 'ConvNeXt', 'VisionTransformer']


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('coverage_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, 'argv', ['coverage.py', *arguments])
    tool.main()


@pytest.mark.usefixtures('room')
@pytest.mark.parametrize('method', list_methods())
@pytest.mark.parametrize('name', MMPRETRAIN)
def test_mmpretrain_from_the_config_alone(name: str, method: str, tool: ModuleType) -> None:
    covered = tool.mmpretrain_backbone(name)
    cell = tool.run_cell('mmpretrain', covered, method, 64)
    copies = get_method(method).needs_gradient_path and name != 'ShuffleNetV2'
    assert cell.outcome == ('refused' if copies else 'ok'), cell
    assert not cell.reason or f'{name}, and what it hands over is not the tensor' in cell.reason


@pytest.mark.usefixtures('room')
def test_a_backbone_without_maps_is_refused() -> None:
    cell = coverage.try_mmpretrain({'type': 'ConvNeXt', 'arch': 'atto'}, 'gap', 1, (64, 64))
    assert cell.outcome == 'refused' and 'ConvNeXt gives [(1, 320)], not maps' in cell.reason


def test_a_run_goes_on_where_it_was(
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    out, page = tmp_path / 'out.json', tmp_path / 'page.md'
    arguments = ['--zoo', 'timm', '--modules', 'starnet', '--side', '64', '--out', str(out)]
    run(tool, monkeypatch, *arguments, '--methods', 'gap')
    run(tool, monkeypatch, *arguments, '--methods', 'gap', 'siou', '--markdown', str(page))
    printed = capsys.readouterr().out
    assert printed.count('starnet gap: ok') == 1 and printed.count('starnet siou: ok') == 1
    cells = json.loads(out.read_text())['timm']['starnet']['cells']
    assert {k: v['outcome'] for k, v in cells.items()} == {'gap': 'ok', 'siou': 'ok'}
    text = page.read_text()
    assert 'python tools/coverage.py' in text and '| gap | 1 | 0 | 0 |' in text
    assert '| not run |' in text


class Leaky(nn.Module):
    """A backbone with what a report must find: maps of other channels than it says."""

    def __init__(self, num_classes: int = 2, in_chans: int = 3, **kwargs: object) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, 4, 4
        self.conv = nn.Conv2d(in_chans, 4, 3, 2)
        self.feature_info = [{'num_chs': 5, 'reduction': 2, 'module': 'conv'}]

    def forward_intermediates(self, x: Tensor, *args: object, **kwargs: object) -> list[Tensor]:
        return [self.conv(x)]

    def prune_intermediate_layers(self, indices: list[int], **kwargs: object) -> list[int]:
        return indices


@register_model
def leaky_net(pretrained: bool = False, **kwargs: object) -> Leaky:
    cfg = {'input_size': (3, 32, 32), 'num_classes': 2}
    return build_model_with_cfg(Leaky, 'leaky_net', False, **{**kwargs, 'pretrained_cfg': cfg})


@pytest.mark.filterwarnings("ignore:.*head='mean'")
def test_what_fails_is_told_from_what_is_refused() -> None:
    covered = coverage.CoveredBackbone('leaky', 'leaky_net', 1, 1)
    cell = coverage.try_timm(covered, 'gap')
    assert cell.outcome == 'refused' and 'the backbone gives [4]' in cell.reason
    cell = coverage.try_timm(coverage.CoveredBackbone('none', 'resnet0', 1, 1), 'gap')
    assert cell.outcome == 'refused' and 'resnet0' in cell.reason
    error = RuntimeError('x')
    assert not coverage.is_refusal(error.with_traceback(_traceback()))


def test_whether_the_control_is_the_network() -> None:
    def row(name: str) -> coverage.CoveredBackbone:
        return coverage.CoveredBackbone(name, name, 1, 1)

    assert coverage.try_timm_control(row('test_convnext')).outcome == 'ok'
    cell = coverage.try_timm_control(row('crossvit_tiny_240'))
    assert cell.outcome == 'refused' and 'reads more than one vector' in cell.reason


@pytest.mark.usefixtures('room')
def test_whether_the_control_is_mmpretrains_own_classifier() -> None:
    resnet = {'type': 'ResNet', 'depth': 18, 'out_indices': (2, 3)}
    assert coverage.try_mmpretrain_control(resnet, (64, 96)).outcome == 'ok'
    cell = coverage.try_mmpretrain_control({'type': 'VisionTransformer'}, (224, 224))
    assert cell.outcome == 'refused' and 'VisionTransformerClsHead behind no neck' in cell.reason


def _traceback() -> object:
    try:
        torch.zeros(2).view(3)
    except RuntimeError as error:
        return error.__traceback__


def test_the_modules_are_timms_own() -> None:
    modules = coverage.timm_modules()
    assert len(modules) >= 98 and 'fg_models' not in modules and 'resnet' in modules
    assert timm.list_models(module='fg_models')


@pytest.mark.slow
@pytest.mark.usefixtures('room')
def test_the_whole_table(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every module of timm and every backbone of MMPretrain, under every method."""
    out = tmp_path / 'out.json'
    run(tool, monkeypatch, '--out', str(out))
    report = json.loads(out.read_text())
    for module, row in report['timm'].items():
        outcomes = {method: cell['outcome'] for method, cell in row['cells'].items()}
        for method in list_methods():
            may_refuse = get_method(method).needs_gradient_path
            assert outcomes[method] == 'ok' or (may_refuse and outcomes[method] == 'refused'), (
                module
            )
    cells = [c for row in report['mmpretrain'].values() for c in row['cells'].values()]
    assert all(cell['outcome'] != 'failed' for cell in cells)
