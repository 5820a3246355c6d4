"""Every operator is counted or named; docs/complexity.md says what an independent counter says."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import fgplugins
from fgplugins.analysis.complexity import (
    count_complexity,
    paper_form,
    set_paper_order,
)
from fgplugins.analysis.forms import complete_second, load_form, split_form
from fgplugins.analysis.loading import load_model
from fgplugins.analysis.module_counters import count_layers
from fgplugins.errors import UserError
from paper_tables import PAPERS, Row, rows_of

ROOT = Path(__file__).parent.parent
PAGE = ROOT / 'docs' / 'complexity.md'
SIZE = (1, 40, 40)
NETWORK = {'backbone': 'clutter_cnn', 'in_chans': 1, 'num_classes': 7}
PAIRS = [f'{k}={v}' for k, v in NETWORK.items()]
VARIANTS = [
    *((name, {}) for name in fgplugins.list_methods()),
    ('warn', {'kernel_size': 1, 'mask': 'sigmoid', 'mix': 'prob', 'gates': False}),
    ('att2', {'compat': 'dp', 'classify': 'indep'}),
    ('att2', {'mask': 'sigmoid'}),
    ('clan', {'relation': 'embedded_gaussian', 'mask': 'sigmoid', 'taps': 3}),
    ('clan', {'relation': 'gaussian', 'context': 'clca'}),
    ('clan', {'context': 'non_local'}),
    ('warn', {'global_gates': 'linear', 'head_gates': False}),
    ('clan', {'spatial': False, 'average': 'probabilities'}),
]


class Function(nn.Module):
    """A function of images (1, 4, 8, 6) as a module with a weight."""

    def __init__(self, function: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.grouped = nn.Conv2d(4, 6, 3, padding='same', groups=2, bias=False)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False)
        self.fc = nn.Linear(6, 5)
        self.batch, self.group = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
        self.layer = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self)


ROWS = 4 * 8  # of six values each

OPERATORS = {
    'convolution': (lambda x, m: m.conv(x), {'conv': 6 * 48 * 36}, {'bias': 6 * 48}),
    'grouped, same padding': (lambda x, m: m.grouped(x), {'conv': 6 * 48 * 18}, {}),
    'transposed convolution': (lambda x, m: m.up(x), {'conv': 48 * 4 * 6 * 4}, {}),
    'linear': (lambda x, m: m.fc(x), {'linear': ROWS * 30}, {'bias': ROWS * 5}),
    'matmul, batched': (lambda x, m: x @ x.mT, {'matmul': 4 * 8 * 8 * 6}, {}),
    'matmul, broadcast': (lambda x, m: x @ m.fc.weight.T, {'matmul': ROWS * 30}, {}),
    'matmul, with a vector': (lambda x, m: x @ m.fc.weight[0], {'matmul': ROWS * 6}, {}),
    'bmm': (lambda x, m: torch.bmm(x[0], x[0].mT), {'bmm': 4 * 8 * 8 * 6}, {}),
    'mm': (lambda x, m: torch.mm(x[0, 0], x[0, 1].T), {'mm': 8 * 8 * 6}, {}),
    'baddbmm': (
        lambda x, m: torch.baddbmm(x[0], x[0] @ x[0].mT, x[0]),
        {'matmul': 4 * 8 * 8 * 6, 'baddbmm': 4 * 8 * 8 * 6},
        {'add': 4 * 8 * 6},
    ),
    'einsum': (
        lambda x, m: torch.einsum('nhw,nchw->nc', x[:, 0], x),
        {'einsum': 4 * 48},
        {},
    ),
    'einsum, without a sum': (lambda x, m: torch.einsum('nchw,c->nchw', x, x[0, :, 0, 0]), {},
                              {'mul': 4 * 48}),
    'einsum of three': (
        lambda x, m: torch.einsum('chw,hv,vu->cwu', x[0], x[0, 0], m.fc.weight.T),
        {'einsum': 4 * 8 * 6 * 6 + 4 * 6 * 6 * 5},
        {},
    ),
    'einsum with an ellipsis': (
        lambda x, m: torch.einsum('...w,ow->...o', x, m.fc.weight),
        {'einsum': ROWS * 30},
        {},
    ),
    'attention': (
        lambda x, m: F.scaled_dot_product_attention(x, x, x),
        {'scaled_dot_product_attention': 2 * 4 * 8 * 8 * 6},
        {'softmax': 4 * 4 * 8 * 8},
    ),
    'affine grid': (
        lambda x, m: F.affine_grid(x[:, 0, :2, :3], [1, 1, 5, 7], align_corners=True),
        {'affine_grid': 5 * 7 * 2 * 3},
        {},
    ),
    'grid sampling': (
        lambda x, m: F.grid_sample(x, x.new_zeros(1, 5, 7, 2), align_corners=True),
        {},
        {'grid_sample': 4 * 4 * 35},
    ),
    'bilinear': (
        lambda x, m: F.interpolate(x, size=(16, 9), mode='bilinear'),
        {},
        {'upsample_bilinear2d': 4 * 4 * 144},
    ),
    'batch norm': (lambda x, m: m.batch(x), {}, {'batch_norm': 2 * ROWS * 6}),
    'layer norm': (lambda x, m: m.layer(x), {}, {'layer_norm': 5 * ROWS * 6}),
    'group norm': (lambda x, m: m.group(x), {}, {'group_norm': 5 * ROWS * 6}),
    'softmax': (lambda x, m: x.softmax(dim=1), {}, {'softmax': 3 * ROWS * 6}),
    'log softmax': (lambda x, m: x.log_softmax(dim=1), {}, {'log_softmax': 3 * ROWS * 6}),
    'mean': (lambda x, m: x.mean(dim=(2, 3)), {}, {'mean': ROWS * 6}),
    'maximum over channels': (lambda x, m: x.amax(dim=1), {}, {'amax': ROWS * 6}),
    'max pooling': (lambda x, m: F.max_pool2d(x, 2), {}, {'max_pool2d': 4 * 4 * 4 * 3}),
    'avg pooling of all': (lambda x, m: F.avg_pool2d(x, x.shape[2:]), {},
                           {'avg_pool2d': ROWS * 6}),
    'adaptive pooling': (
        lambda x, m: F.adaptive_avg_pool2d(x, 1),
        {},
        {'adaptive_avg_pool2d': ROWS * 6},
    ),
    'elementwise': (
        lambda x, m: (x.relu() + x.sigmoid() * 2).clamp_min(0.1),
        {},
        {'relu': 192, 'sigmoid': 192, 'mul': 192, 'add': 192, 'clamp_min': 192},
    ),
    'in place': (lambda x, m: F.relu_(x.clone()).add_(1), {}, {'relu': 192, 'add': 192}),
    'moving and choosing': (
        lambda x, m: torch.where(x > 0, x.flip(3), F.pad(x, (1, 0))[..., 1:]).flatten(1)[:, ::2],
        {},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', OPERATORS)
def test_every_operator_has_its_price(name: str) -> None:
    function, macs, elementary = OPERATORS[name]
    cost = count_complexity(Function(function), (4, 8, 6))
    assert cost.operators == macs and cost.macs == sum(macs.values())
    assert cost.other == elementary and cost.elementary[''] == sum(elementary.values())
    assert cost.uncounted == {}


def test_what_has_no_handler_is_named() -> None:
    def function(x: Tensor, module: nn.Module) -> Tensor:
        return module.conv(x).sum() * torch.linalg.det(x[0, :, :4, :4]).sum() + torch.erfinv(x)

    cost = count_complexity(Function(function), (4, 8, 6))
    assert set(cost.uncounted) == {'aten::linalg_det', 'aten::erfinv'}
    assert cost.uncounted['aten::erfinv'] == 1 and cost.macs == 6 * 48 * 36


def by_torch(forward: Callable[[Tensor], object], size: tuple[int, int, int], device: str) -> int:
    """Multiply-adds as torch's own counter has them, which looks at other operators than fvcore."""
    counter = FlopCounterMode(display=False)
    # not every version of the counter knows fused attention on a CPU
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        forward(torch.zeros(1, *size, device=device))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(('method', 'kwargs'), VARIANTS, ids=str)
def test_methods_are_counted_whole(method: str, kwargs: dict) -> None:
    """In both orders: no operator is missed, the branches sum up, torch's counter agrees."""
    loaded = load_model(method, None, [*PAIRS, *(f'{k}={v}' for k, v in kwargs.items())])
    for forward in (None, paper_form(loaded)):
        cost = count_complexity(loaded.model, SIZE, forward, loaded.method)
        assert cost.uncounted == {}
        whole = (cost.parameters, cost.macs, cost.elementary[''])
        parts = zip(*cost.branches.values(), strict=True)
        assert tuple(sum(part) for part in parts) == whole
        assert cost.macs == by_torch(forward or loaded.model, SIZE, 'cpu')
        assert cost.parameters == sum(p.numel() for p in loaded.model.parameters())


@pytest.mark.parametrize(
    'name',
    [
        'convnext_atto',
        'efficientnet_b0',
        pytest.param('vit_tiny_patch16_224', marks=pytest.mark.slow),
        pytest.param('swin_tiny_patch4_window7_224', marks=pytest.mark.slow),
    ],
)
def test_backbones_are_counted_whole(name: str) -> None:
    model = timm.create_model(name).eval()
    size = model.default_cfg['input_size'] if 'vit' in name or 'swin' in name else (3, 64, 64)
    cost = count_complexity(model, size)
    assert cost.uncounted == {}
    assert cost.macs == by_torch(model, size, 'cpu')


def test_the_papers_order_is_put_in_place_and_back() -> None:
    loaded = load_model('clan', None, PAIRS)
    for p in loaded.method.parameters():
        nn.init.normal_(p, std=0.05)
    x = torch.randn(2, *SIZE)
    with torch.no_grad():
        maps = loaded.features(x)
        ours, printed = loaded.method(maps), loaded.method.forward_paper(maps)
        restore = set_paper_order(loaded.method)
        swapped = loaded.model(x)
        assert torch.equal(swapped, printed)
        target = torch.tensor([1, 2])
        terms = loaded.method.loss(maps, target)
        restore()
        assert torch.equal(loaded.model(x), ours)
        torch.testing.assert_close(loaded.method.loss(maps, target), terms)
    assert not any('forward' in module.__dict__ for module in loaded.method.modules())


@pytest.mark.parametrize(('name', 'settings'), [('warn', {}), ('clan', {'inner_channels': 4})])
def test_the_papers_order_trains_the_same(name: str, settings: dict[str, int]) -> None:
    method = fgplugins.get_method(name)([8, 12], 5, **settings).double()
    maps = [torch.randn(2, 8, 6, 6).double(), torch.randn(2, 12, 3, 3).double()]
    target = torch.tensor([1, 2])
    weights = list(method.parameters())

    def gradients() -> list[Tensor | None]:
        total = sum(method.loss(maps, target).values())
        return [total, *torch.autograd.grad(total, weights, allow_unused=True)]

    ours = gradients()
    restore = set_paper_order(method)
    assert 'forward' in method.__dict__
    torch.testing.assert_close(gradients(), ours, atol=1e-10, rtol=1e-10)
    restore()


@pytest.mark.parametrize('batch', [1, 40])
@pytest.mark.parametrize('size', [(2, 3), (4, 5), (9, 8), (12, 11)])
def test_every_order_of_clan_gives_the_printed_scores(batch: int, size: tuple[int, int]) -> None:
    """On both sides of each choice by shape: 48, 64 and 96 channels, 6 to 132 positions."""
    method = fgplugins.get_method('clan')([48, 64], 5, inner_channels=16).double().eval()
    for p in method.parameters():
        nn.init.normal_(p, std=0.2)
    maps = [torch.randn(batch, 48, *size).double(), torch.randn(batch, 64, 2, 3).double()]
    torch.testing.assert_close(method(maps), method.forward_paper(maps), atol=1e-10, rtol=1e-10)


# ---------------------------------------------------------------------------- docs/complexity.md


def page_cells(title: str, label: str) -> list[str]:
    """The cells of a row of a table of the page."""
    section = PAGE.read_text(encoding='utf-8').split(f'## {title}\n')[1].split('\n## ')[0]
    rows = ([cell.strip() for cell in line.strip('|').split('|')] for line in section.splitlines())
    return next(row for row in rows if row[0] == label)


def counted_on_meta(row: Row, paper: bool) -> tuple[int, int, int]:
    """Parameters, operations and left-out products without a number being computed."""
    size = (3, row.size, row.size)
    with torch.device('meta'):
        if not isinstance(row.model, str):
            model = row.model().eval()
            return sum(p.numel() for p in model.parameters()), by_torch(model, size, 'meta'), 0
        kwargs = row.kwargs if paper else {**row.kwargs, **(row.ours or {})}
        loaded = load_model(row.model, None, [f'{k}={v}' for k, v in kwargs.items()])
    forward = paper_form(loaded) if paper and loaded.method is not None else loaded.model
    parameters = sum(p.numel() for p in loaded.model.parameters())
    if row.layers:
        return parameters, *count_layers(loaded.model, size, forward)
    return parameters, by_torch(forward, size, 'meta'), 0


def check_row(title: str, row: Row) -> None:
    cells = page_cells(title, row.label)
    paper, ours = counted_on_meta(row, True), counted_on_meta(row, False)
    assert cells[2] == row.parameters and cells[5] == row.macs
    assert cells[3:5] == [f'{side[0] / 1e6:.3f}' for side in (paper, ours)]
    assert cells[6:8] == [f'{side[1] / 1e9:.3f}' for side in (paper, ours)]
    if row.layers:
        assert cells[9:11] == [f'{sum(side[1:]) / 1e9:.3f}' for side in (paper, ours)]


QUICK = {
    'WARN, Table 1': 'WARN 28, AD 3, 100 classes',
    'WARN, Table 2': 'WRN-att2 40',
    'CLAN, Table 5': '3-scale CLAN',
    'ICASC, Table 2': 'ResNet (pre-activation)',
    'CRA-CNN, sections 1 and 4': 'CRA-CNN, ResNet-50',
}


@pytest.mark.parametrize('title', PAPERS)
def test_a_row_of_every_table(title: str) -> None:
    row = next((row for row in rows_of(title) if row.label == QUICK[title]), None)
    if row is None:
        pytest.skip('its network is not registered')
    check_row(title, row)


def test_every_row_is_on_the_page_and_explained() -> None:
    text = PAGE.read_text(encoding='utf-8')
    for title in PAPERS:
        for row in rows_of(title):
            verdict = page_cells(title, row.label)[8]
            assert verdict.startswith('as printed') or f'[{row.note}]' in verdict or not row.macs
            assert not row.note or f'- [{row.note}] ' in text


@pytest.mark.slow
@pytest.mark.parametrize('title', PAPERS)
def test_the_whole_table(title: str) -> None:
    for row in rows_of(title):
        check_row(title, row)


@pytest.mark.slow
def test_the_page_is_what_its_command_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / 'scripts' / 'make_complexity.py'), '--check'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_training_alone_needs_costs_nothing_deployed() -> None:
    """CRA-CNN and ICASC: "no heavier than the backbone", to the unit."""
    for method in set(fgplugins.list_methods()) & {'siou', 'art'}:
        for backbone in ('resnet18', 'resnet34'):
            with torch.device('meta'):
                plain = timm.create_model(backbone, num_classes=7).eval()
                model = timm.create_model(method, backbone=backbone, num_classes=7).eval()
            size = (3, 96, 64)
            assert by_torch(plain, size, 'meta') == by_torch(model, size, 'meta')
            counts = [sum(p.numel() for p in m.parameters()) for m in (plain, model)]
            assert counts[0] == counts[1]


# --------------------------------------------------------------------------------------- the tool


@pytest.fixture
def get_flops(run_tool: Callable) -> Callable[..., tuple[int, str, str]]:
    """Run tools/get_flops.py: its exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        done = run_tool('get_flops', *arguments)
        return done.returncode, done.stdout, done.stderr

    return call


SMALL = ['warn', '--model-kwargs', *PAIRS]


def test_formats_say_the_same(get_flops: Callable, tmp_path: Path) -> None:
    code, text, _ = get_flops(*SMALL, '--convention', 'all', '--json', 'a.json')
    assert code == 0
    content = json.loads((tmp_path / 'a.json').read_text())
    macs, elementary = content['ours']['macs'], content['ours']['elementary']
    assert f'MACs: {macs / 1e9:.3f} G ({macs:,})' in text and 'softmax' in text
    assert sum(content['ours']['operators'].values()) == macs
    assert sum(content['ours']['other'].values()) == elementary
    branches = content['ours']['branches']
    assert sum(b['macs'] for b in branches.values()) == macs
    levels = [name for name in branches if name.startswith('method.attention_modules.')]
    printed = content['paper']['branches']
    assert len(levels) == 3 and all(printed[k]['macs'] > branches[k]['macs'] > 0 for k in levels)

    for name in ('a.md', 'a.csv', 'a.txt', 'b.json'):
        assert get_flops(*SMALL, '--out', name)[0] == 0
    assert json.loads((tmp_path / 'b.json').read_text())['ours'] == content['ours']
    lines = (tmp_path / 'a.md').read_text().splitlines()
    row = ['|', '(model)', '|', f'{content["ours"]["parameters"]:,}', '|', f'{macs:,}', '|']
    assert row in [line.split() for line in lines]
    rows = list(csv.DictReader(io.StringIO((tmp_path / 'a.csv').read_text())))
    total = next(row for row in rows if row['form'] == 'ours' and row['part'] == 'total')
    assert int(total['macs']) == macs and int(total['elementary']) == elementary
    code, printed, _ = get_flops(*SMALL, '--format', 'json')
    assert code == 0 and json.loads(printed)['ours'] == content['ours']


def test_two_models_beside_each_other(get_flops: Callable, tmp_path: Path) -> None:
    code, text, _ = get_flops(*SMALL, '--versus', ':backbone', '--out', 'a.json')
    assert code == 0 and 'warn:backbone' in text and 'difference' in text
    content = json.loads((tmp_path / 'a.json').read_text())
    plain = count_complexity(timm.create_model('clutter_cnn', in_chans=1, num_classes=7), SIZE)
    assert content['versus']['ours']['macs'] == plain.macs
    assert content['difference']['macs'] == content['ours']['macs'] - plain.macs > 0

    code, text, _ = get_flops(*SMALL, '--versus', 'clutter_cnn')  # of as many classes
    assert code == 0 and f'{plain.parameters:,}' in text
    code, text, _ = get_flops(*SMALL, '--versus', ':paper', '--versus-kwargs', 'heads=2')
    assert code == 0 and 'warn:paper' in text


@pytest.mark.usefixtures('room')
def test_a_checkpoint_says_what_it_is_of(get_flops: Callable, tmp_path: Path) -> None:
    import argparse

    kwargs = {'backbone': 'clutter_cnn', 'heads': 2}
    model = timm.create_model('warn', num_classes=7, in_chans=1, **kwargs)
    arguments = argparse.Namespace(model_kwargs=kwargs, num_classes=7, in_chans=1)
    saved = {'state_dict': model.state_dict(), 'arch': 'warn', 'args': arguments}
    torch.save(saved, tmp_path / 'timm.pth')
    torch.save(model.state_dict(), tmp_path / 'bare.pth')
    expected = count_complexity(model, SIZE).parameters
    code, text, error = get_flops('timm.pth')
    assert code == 0 and f'{expected:,}' in text, error
    code, text, error = get_flops(*SMALL, 'heads=2', '--checkpoint', 'bare.pth')
    assert code == 0 and f'{expected:,}' in text, error
    from mmengine.config import Config

    meta = {'cfg': Config.fromfile(ROOT / 'configs' / 'warn_cnn_digits.py').pretty_text}
    state = load_model('warn_cnn_digits').model.state_dict()
    torch.save({'state_dict': state, 'meta': meta}, tmp_path / 'epoch_7.pth')
    code, text, error = get_flops('epoch_7.pth')
    assert code == 0 and 'epoch_7, input 1 x 40 x 40' in text, error
    code, _, error = get_flops('bare.pth')
    assert code == 2 and 'does not say what it is of' in error and '--checkpoint' in error


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['warn:slow'], "'warn:slow': a form is one of ours, paper, backbone"),
        (['resnet10t:paper'], 'is a plain network and has no method'),
        ([*SMALL, '--out', 'a.pdf'], "--out 'a.pdf': the ending must be one of .txt, .md"),
        ([*SMALL, '--json', 'no/a.json'], '--json no/a.json: there is no folder no'),
        ([*SMALL, '--versus', 'resnet5000'], 'resnet5000'),
        (['none.pth'], "checkpoint 'none.pth' is not a file"),
        (['vit_tiny_patch16_224', '--shape', '64'], 'does not run on 3 x 64 x 64'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_mistakes(get_flops: Callable, arguments: list[str], message: str) -> None:
    code, _, error = get_flops(*arguments)
    assert code == 2 and message in error and 'Traceback' not in error


@pytest.mark.parametrize('path', ['tools/get_flops', 'scripts/make_complexity'])
def test_help(run_tool: Callable, path: str) -> None:
    folder, name = path.split('/')
    done = run_tool(name, '--help', folder=folder)
    assert done.returncode == 0 and f'python {path}.py' in done.stdout


def test_names_and_forms() -> None:
    assert split_form('warn') == ('warn', 'ours') and split_form('a:paper') == ('a', 'paper')
    with pytest.raises(UserError, match='a form is one of'):
        split_form('a:b')
    given = (['num_classes=7', 'heads=2'], [])
    assert complete_second('warn', ':paper', given, (None, None)) == ('warn:paper', given[0], [])
    assert complete_second('warn', 'resnet10t', given, (None, None))[1] == ['num_classes=7']
    assert complete_second('warn', 'resnet10t', given, (['in_chans=1'], None))[1] == ['in_chans=1']


def test_the_backbone_form_is_the_plain_network() -> None:
    form = load_form('warn:backbone', PAIRS)
    plain = timm.create_model('clutter_cnn', num_classes=7, in_chans=1).eval()
    weights = {k.removeprefix('backbone.'): v for k, v in form.model.state_dict().items()}
    for name in ('weight', 'bias'):
        weights[f'head.fc.{name}'] = weights.pop(f'method.classifier.{name}')
    plain.load_state_dict(weights)
    x = torch.randn(2, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(form.model(x), plain(x))
