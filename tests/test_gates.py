"""A network's own gates in front of a method's masks, everywhere that masks are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

import fgplugins  # noqa: F401
from fgplugins.methods.att2 import Att2
from fgplugins.networks.gates import gates_of, show
from fgplugins.utils.drawing import attention_titles


class TwoGates(nn.Module):
    """Two gated convolutions; the shallow one is the second of the modules."""

    attention_gates = ('shallow', 'deep')

    def __init__(self) -> None:
        super().__init__()
        self.deep, self.shallow = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x * self.deep(x * self.shallow(x))]


def test_gates_come_first_in_their_order() -> None:
    network, method, x = TwoGates().eval(), Att2([3], 4).eval(), torch.randn(2, 3, 5, 6)
    scores, masks = show(method, network, network, x)
    shallow = network.shallow(x)
    expected = [shallow, network.deep(x * shallow), *method.show(network, x)[1]]
    assert len(masks) == 3
    for ours, theirs in zip(masks, expected, strict=True):
        assert torch.equal(ours, theirs) and not ours.requires_grad
    assert torch.equal(scores, method.show(network, x)[0])


def test_nothing_stays_behind() -> None:
    network, method = TwoGates().eval(), Att2([3], 4).eval()
    with pytest.raises(RuntimeError):
        show(method, network, network, torch.randn(2, 5, 4, 4))
    show(method, network, network, torch.randn(2, 3, 4, 4))
    assert not any(m._forward_hooks for m in network.modules())


def test_most_networks_have_none() -> None:
    network = nn.Identity()
    assert gates_of(network) == ()
    method, x = Att2([3], 4).eval(), torch.randn(2, 3, 4, 4)
    ours, theirs = show(method, network, lambda x: [x], x), method.show(lambda x: [x], x)
    assert torch.equal(ours[0], theirs[0]) and len(ours[1]) == len(theirs[1]) == 1


def test_titles() -> None:
    masks = [np.zeros((K, 2, 2)) for K in (1, 1, 2, 3)]
    assert attention_titles(masks[2:]) == [
        ['level 1, head 1', 'level 1, head 2'],
        ['level 2, head 1', 'level 2, head 2', 'level 2, head 3'],
    ]
    assert attention_titles(masks[1:3], 1, [['a', 'b']], 'x: ') == [
        ['x: gate'],
        ['x: level 1, a', 'x: level 1, b'],
    ]
    assert attention_titles(masks[:3], 2)[:2] == [['gate 1'], ['gate 2']]


def gate_and_mask(network: nn.Module, method: Att2, x: Tensor) -> list[Tensor]:
    """Of PAN: layer 10's gate by its formula, and the attention to layer 13."""
    first, second, third = network.stages
    with torch.no_grad():
        L = second[:-1](first(x))
        gate = second[-1].gate
        a = (gate.u(L) + gate.u(gate.global_branch(L)[..., None, None]) - gate.u.bias).sigmoid()
        return [a, *method.attention([third(L * a)])]


def check(masks: list[Tensor], expected: list[Tensor]) -> None:
    assert [tuple(m.shape[1:]) for m in masks] == [(1, 16, 16), (1, 8, 8)]
    for ours, theirs in zip(masks, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_of_a_timm_model() -> None:
    torch.manual_seed(0)
    model, x = timm.create_model('pan_vgg', num_classes=4).eval(), torch.randn(2, 3, 32, 32)
    masks = model.attention_maps(x)
    check(masks, gate_and_mask(model.backbone, model.method, x))
    assert masks[0].std() > 1e-3 and not masks[0].requires_grad
    with torch.no_grad():
        assert torch.equal(model.show(x)[0], model(x))
    assert len(model.attention_maps(x)) == 2  # nothing is remembered


PAN = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='att_vgg', head='mean', progressive=True),
    head=dict(type='Att2Head', num_classes=3, pool_first=True, taps=1),
    data_preprocessor=dict(type='ClsDataPreprocessor', mean=[0] * 3, std=[255] * 3),
)


def test_of_mmpretrains(zoo: object) -> None:
    torch.manual_seed(0)
    model, x = zoo.MODELS.build(PAN).eval(), torch.randn(2, 3, 32, 32)
    expected = gate_and_mask(model.backbone.timm_model, model.head.method, x)
    check(model.attention_maps(x), expected)
    scores, masks = model.head.show(model, x)
    check(masks, expected)
    with torch.no_grad():
        assert torch.equal(scores, model(x, mode='tensor'))


def test_of_the_picture_after_training(
    zoo: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('matplotlib')
    from mmpretrain.structures import DataSample

    from fgplugins.zoo_mmpretrain import pictures

    drawn: dict[str, object] = {}
    monkeypatch.setattr(
        pictures, 'draw_attention', lambda images, maps, *_, titles: drawn.update(m=maps, t=titles)
    )
    samples = [{'inputs': torch.zeros(3, 32, 32, dtype=torch.uint8), 'data_samples': DataSample()}]
    images = [np.zeros((32, 32, 3), np.uint8)]
    model = zoo.MODELS.build(PAN)
    pictures.draw_samples(model, samples, images, list('abc'), tmp_path / 'a.png')
    assert [m.shape for m in drawn['m'][0]] == [(1, 16, 16), (1, 8, 8)]
    assert drawn['t'] == [['gate'], ['level 1, head 1']]


def test_of_show_attention(
    run_tool: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('matplotlib')
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, path: figures.append(figure))
    torch.save(timm.create_model('pan_vgg', num_classes=3).state_dict(), tmp_path / 'a.pth')
    Image.new('RGB', (32, 32), 'red').save(tmp_path / 'x.png')
    options = ['--model-kwargs', 'num_classes=3']
    done = run_tool('show_attention', 'pan_vgg', 'a.pth', 'x.png', *options)
    assert done.returncode == 0, done.stderr
    titles = [' '.join(axis.get_title().split()) for axis in figures[0].axes]
    assert titles[1:] == ['gate', 'level 1, head 1']
