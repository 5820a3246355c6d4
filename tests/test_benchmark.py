"""tools/benchmark.py on tiny models: what it writes and refuses. No time is held to anything."""

from __future__ import annotations

import json
import runpy
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import fgplugins
from fgplugins.analysis import benchmark
from fgplugins.analysis.forms import load_form
from fgplugins.analysis.memory import peak_bytes
from fgplugins.analysis.timing import median_ratio, paired_seconds
from fgplugins.errors import UserError

ROOT = Path(__file__).parent.parent
PAIRS = ['backbone=clutter_cnn', 'in_chans=1', 'num_classes=7', 'widths=(4,4,8,8,8)']
SMALL = ['warn', '--model-kwargs', *PAIRS]
QUICK = ['--rounds', '5', '--seconds', '0.001', '--device', 'cpu']


@pytest.fixture
def run(run_tool: Callable) -> Callable[..., tuple[int, str, str]]:
    """Run the tool: its exit code, output and errors."""
    threads = torch.get_num_threads()

    def call(*arguments: str) -> tuple[int, str, str]:
        done = run_tool('benchmark', *arguments)
        return done.returncode, done.stdout, done.stderr

    yield call
    torch.set_num_threads(threads)


def check_report(report: dict, count: int) -> None:
    """The structure, and that what is derived is derived from what was measured."""
    assert set(report) == {
        'title', 'command', 'machine', 'setup', 'first', 'second', 'swept', 'points', 'accuracy'
    }  # fmt: skip
    assert {'maker', 'cpu', 'cores', 'threads', 'torch', 'python', 'system'} <= set(
        report['machine']
    )
    assert report['command'].startswith('python tools/benchmark.py warn')
    assert len(report['points']) == count
    for point in report['points']:
        assert set(point) == {'size', 'batch', 'classes', 'heads', 'first', 'second', 'ratio'}
        rounds = report['setup']['rounds']
        for side in (point['first'], point['second']):
            assert set(side) == {'seconds', 'median', 'peak_bytes', 'macs', 'parameters'}
            assert len(side['seconds']) == rounds and min(side['seconds']) > 0
            assert side['median'] == statistics.median(side['seconds'])
            assert side['macs'] > 0 and side['parameters'] > 0
        ratios = [
            a / b
            for a, b in zip(point['first']['seconds'], point['second']['seconds'], strict=True)
        ]
        ratio = point['ratio']
        assert ratio['median'] == pytest.approx(statistics.median(ratios))
        assert ratio['min'] <= ratio['low'] <= ratio['median'] <= ratio['high'] <= ratio['max']


def test_a_sweep_is_written_and_drawn(run: Callable, tmp_path: Path) -> None:
    code, out, error = run(
        *SMALL, '--paper', '--sizes', '24', '40', '--threads', '1', *QUICK, '--json', 'a.json',
        '--plot', 'a.png', '--accuracy', 'warn=97.5', ':backbone=96.1', 'clutter_cnn=96',
    )  # fmt: skip
    assert code == 0, error
    report = json.loads((tmp_path / 'a.json').read_text())
    check_report(report, 2)
    assert report['first'] == 'warn' and report['second'] == 'warn:paper'
    assert report['machine']['threads'] == 1 and report['swept'] == 'size'
    assert [point['size'] for point in report['points']] == [24, 40]
    one, other = report['points']
    assert (
        one['first']['macs'] < one['second']['macs']
        and one['first']['macs'] < other['first']['macs']
    )
    assert one['first']['peak_bytes'] < other['first']['peak_bytes']
    assert [row['name'] for row in report['accuracy']] == ['warn', 'warn:backbone', 'clutter_cnn']
    assert report['accuracy'][0]['macs'] == other['first']['macs']  # at the model's own size, 40
    assert report['accuracy'][0]['macs'] > report['accuracy'][1]['macs']
    assert 'round 5 of 5' in error and 'left' in error and 'ratio' in out
    image = np.asarray(Image.open(tmp_path / 'a.png'))
    assert min(image.shape[:2]) > 200 and image.std() > 5


@pytest.mark.parametrize('mode', benchmark.MODES)
def test_every_mode(run: Callable, tmp_path: Path, mode: str) -> None:
    code, _, error = run(
        *SMALL,
        '--versus',
        ':backbone',
        '--mode',
        mode,
        '--batches',
        '3',
        *QUICK,
        '--json',
        'a.json',
    )
    assert code == 0, error
    report = json.loads((tmp_path / 'a.json').read_text())
    check_report(report, 1)
    point = report['points'][0]
    assert point['batch'] == 3 and point['size'] == 40
    assert (point['first']['macs'] < 1e5) == mode.startswith('method')


@pytest.mark.parametrize(
    ('option', 'values', 'key'),
    [('--batches', ['1', '2'], 'batch'), ('--classes', ['3', '9'], 'classes'),
     ('--heads', ['1', '5'], 'heads')],
)  # fmt: skip
def test_what_can_be_swept(
    run: Callable, tmp_path: Path, option: str, values: list[str], key: str
) -> None:
    code, out, error = run(*SMALL, option, *values, *QUICK, '--json', 'a.json', '--cpu-time')
    assert code == 0, error
    report = json.loads((tmp_path / 'a.json').read_text())
    check_report(report, 2)
    assert report['swept'] == key and out.splitlines()[2].startswith(key)
    assert [point[key] for point in report['points']] == [int(value) for value in values]
    one, other = (point['second'] for point in report['points'])
    assert (one['macs'] < other['macs']) == (key != 'batch')  # the counts are of one image


@pytest.mark.usefixtures('room')
def test_a_config_in_another_format(run: Callable, tmp_path: Path) -> None:
    code, _, error = run(
        'warn_cnn_digits', '--versus', 'gap_cnn_digits', '--mode', 'train', '--dtype', 'bfloat16',
        '--channels-last', '--heads', '2', *QUICK, '--json', 'a.json',
    )  # fmt: skip
    assert code == 0, error
    report = json.loads((tmp_path / 'a.json').read_text())
    check_report(report, 1)
    assert 'bfloat16, channels_last' in report['title']
    assert report['setup']['channels_last'] is True


@pytest.mark.slow
def test_compiled(run: Callable, tmp_path: Path) -> None:
    for mode in ('forward', 'train', 'method', 'method-train'):
        code, _, error = run(*SMALL, '--compile', '--mode', mode, *QUICK, '--json', 'a.json')
        assert code == 0, error
        report = json.loads((tmp_path / 'a.json').read_text())
        check_report(report, 1)
        assert report['points'][0]['first']['peak_bytes'] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu(run: Callable, tmp_path: Path) -> None:
    settings = ['--rounds', '5', '--seconds', '0.01', '--device', 'cuda', '--dtype', 'bfloat16']
    code, _, error = run(*SMALL, '--channels-last', *settings, '--json', 'a.json')
    assert code == 0, error
    report = json.loads((tmp_path / 'a.json').read_text())
    check_report(report, 1)
    assert report['machine']['gpu'] in report['title']
    assert report['points'][0]['first']['peak_bytes'] > 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['resnet10t'], 'is a plain network and has no method'),
        ([*SMALL, '--sizes', '24', '40', '--batches', '1', '2'], 'one of them can have several'),
        ([*SMALL, '--device', 'tpu'], "--device 'tpu': must be cpu or cuda"),
        ([*SMALL, '--rounds', '2'], '--rounds 2: a median needs at least 5'),
        ([*SMALL, '--paper', '--versus', 'gap'], 'give one of them'),
        ([*SMALL, '--threads', '0'], '--threads 0: needs at least 1'),
        ([*SMALL, '--accuracy', 'warn', *QUICK], "--accuracy 'warn': must read NAME=VALUE"),
        (['gap', '--model-kwargs', *PAIRS, '--heads', '2'], 'neither gap nor the other has heads'),
        ([*SMALL, '--versus', 'clutter_cnn', '--mode', 'method', *QUICK], 'and has no method'),
        ([*SMALL, '--sizes', '1', '--mode', 'train', *QUICK], 'does not run on 1 images of 1 x 1'),
        ([*SMALL, '--json', 'no/a.json', *QUICK], '--json no/a.json: there is no folder no'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_mistakes(run: Callable, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, _, error = run(*arguments)
    assert code == 2 and message in error and 'Traceback' not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('method', fgplugins.list_methods())
def test_methods_train_in_channels_last(method: str) -> None:
    form = load_form(method, PAIRS)
    form.model.train().to(memory_format=torch.channels_last)
    x = torch.randn(4, 1, 40, 40).to(memory_format=torch.channels_last)
    form.loss()(x, torch.tensor([0, 1, 2, 3])).backward()
    assert all(p.grad is not None for p in form.model.parameters())


def test_help(run: Callable) -> None:
    code, out, _ = run('--help')
    assert code == 0 and 'python tools/benchmark.py' in out and 'method-train' in out


def test_a_method_that_needs_the_backbone_says_so(run: Callable) -> None:
    code, _, error = run('siou', '--model-kwargs', *PAIRS, '--mode', 'method-train', *QUICK)
    assert code == 2 and 'goes through the backbone: use train' in error


def test_calls_alternate_and_medians_are_taken() -> None:
    """Rounds begin with the one and the other in turn; neither runs more often."""
    calls: list[str] = []
    one, other = (lambda: calls.append('a')), (lambda: calls.append('b'))
    told: list[str] = []
    a, b = paired_seconds([one, other], 6, 1e-12, torch.device('cpu'), False, told.append)
    assert len(a) == len(b) == 6 and len(told) == 6
    timed = ''.join(calls[6:])  # three calls each to warm up
    assert timed.startswith('abbaab') and timed.count('a') == timed.count('b')
    ratio = median_ratio([2, 4, 9], [1, 1, 1])
    assert (ratio['median'], ratio['min'], ratio['max']) == (4, 2, 9)


def test_peak_memory_is_exact() -> None:
    """Two tensors at a time, views free, what was there before not counted."""
    x = torch.ones(1000)

    def function() -> torch.Tensor:
        first = x + 1
        second = first * 2
        del first
        third = second[:10].view(2, 5)
        return third + (second * 3).sum()

    assert peak_bytes(function, [x]) == 8004  # the sum stands beside both
    layer = nn.Linear(50, 50, bias=False)

    def step() -> None:
        layer(torch.ones(4, 50)).sum().backward()

    step()
    layer.weight.grad = None
    # at least the gradient of the weights and the layer's input
    assert peak_bytes(step, layer.parameters()) >= 4 * (50 * 50 + 4 * 50)


def test_statistics_are_settled() -> None:
    """They are those of one batch, as a plain average has them; momentum and modes stay."""
    form, other = load_form('warn', PAIRS), load_form('warn', PAIRS)
    other.model.load_state_dict(form.model.state_dict())
    before = [m.momentum for m in form.model.modules() if isinstance(m, nn.BatchNorm2d)]
    benchmark.settle_statistics(form.model, (1, 40, 40))
    norms = [m for m in form.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.momentum for m in norms] == before
    assert not any(module.training for module in form.model.modules())
    assert norms and all(m.num_batches_tracked == 1 for m in norms)
    for m in other.model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
            m.momentum = None
    with torch.no_grad():
        x = torch.randn(4, 1, 40, 40, generator=torch.Generator().manual_seed(0))
        other.model.train()(x)
    for name, value in other.model.state_dict().items():
        assert torch.equal(form.model.state_dict()[name], value), name


def test_forms_share_the_weights() -> None:
    """What is timed against a model's other form lies in the same memory, and computes the same."""
    ours, control = load_form('warn', PAIRS), load_form('warn:backbone', PAIRS)
    benchmark.share_weights(ours.model, control.model)
    x = torch.randn(2, 1, 40, 40)
    for a, b in zip(ours.loaded.features(x), control.loaded.features(x), strict=True):
        assert torch.equal(a, b)
    given = dict(ours.model.named_parameters())
    shared = {n for n, p in control.model.named_parameters() if p.data_ptr() == given[n].data_ptr()}
    assert shared == {n for n, _ in control.model.named_parameters()}  # the classifier's too
    with torch.no_grad():
        assert not torch.equal(ours.model(x), control.model(x))  # two functions still


@pytest.mark.parametrize(('other', 'shared'), [('warn:paper', True), ('warn', False)])
def test_only_another_form_shares(other: str, shared: bool) -> None:
    """A model with other settings keeps its weights and the statistics of its own images."""
    forms = [load_form('warn', PAIRS), load_form(other, PAIRS)]
    benchmark.measure_point(forms, benchmark.Setup(rounds=1, seconds=1e-9), 40, 1)
    first, second = (next(form.model.parameters()) for form in forms)
    assert (first.data_ptr() == second.data_ptr()) == shared


def test_the_page_repeats_its_files() -> None:
    docs = Path(__file__).parent.parent / 'docs'
    checked = 0
    for line in (docs / 'speed.md').read_text(encoding='utf-8').splitlines():
        if not line.startswith('|') or 'results/cost/' not in line:
            if line.startswith('|') and 'times' in line:
                faster = 'faster' in line
            continue
        _, size, batch, value, spread, link = (cell.strip() for cell in line.strip('|').split('|'))
        report = json.loads((docs / link.split('(')[1].rstrip(')')).read_text(encoding='utf-8'))
        chosen = [p for p in report['points'] if (p['size'], p['batch']) == (int(size), int(batch))]
        (ratio,) = (point['ratio'] for point in chosen)
        middle, low, high = ratio['median'], ratio['low'], ratio['high']
        if faster:
            middle, low, high = 1 / middle, 1 / high, 1 / low
        for printed, measured in zip(
            (value, *spread.split(' to ')), (middle, low, high), strict=True
        ):
            assert abs(float(printed) - measured) <= 0.0051, line
        assert len(report['points'][0]['first']['seconds']) >= 5
        checked += 1
    assert checked >= 18
    builds = json.loads((docs / 'results/cost/startup.json').read_text())['builds']
    ratios = [row['ratio']['median'] for row in builds]
    assert f'{min(ratios):.2f} to {max(ratios):.2f} times' in (docs / 'speed.md').read_text()


@pytest.mark.usefixtures('room')
def test_what_comes_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tool = runpy.run_path(str(ROOT / 'scripts' / 'time_startup.py'), run_name='time_startup')
    assert tool['IMPORTS'].index('import timm') < tool['IMPORTS'].index('import fgplugins')
    monkeypatch.setitem(
        tool['main'].__globals__, 'time_imports', lambda rounds: {'timm': 4.0, 'fgplugins': 0.1}
    )
    out = tmp_path / 'out.json'
    arguments = ['--presets', 'siou_resnet110', '--rounds', '5', '--json', str(out)]
    monkeypatch.setattr(sys, 'argv', ['time_startup.py', *arguments])
    tool['main']()
    (row,) = json.loads(out.read_text())['builds']
    assert row['backbone'] == 'resnet110' and [len(times) for times in row['seconds']] == [5, 5]
    assert row['ratio']['median'] > 0.5
    assert 'fgplugins: 0.100 s more' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', ['time_startup.py', '--presets', 'warn'])
    with pytest.raises(UserError, match='--presets warn: there are art_resnet50'):
        tool['main']()


def test_ours_against_the_papers_order(run_tool: Callable, tmp_path: Path) -> None:
    arguments = ['--only', 'CNN on digits, AD 1', '--rounds', '5', '--seconds', '0.001']
    threads = torch.get_num_threads()
    done = run_tool('time_orders', *arguments, '--json', 'a.json', folder='scripts')
    torch.set_num_threads(threads)
    assert done.returncode == 0 and 'worst: ' in done.stdout
    report = json.loads((tmp_path / 'a.json').read_text())
    assert report['machine']['maker'] and report['machine']['threads'] == 1
    found = [(row['mode'], row['batch']) for row in report['rows']]
    assert found == [('method', 1), ('method', 8), ('method-train', 1), ('method-train', 8)]
    for row in report['rows']:
        assert row['case'] == 'WARN, CNN on digits, AD 1, AW 1'
        ratios = [a / b for a, b in zip(row['ours'], row['paper'], strict=True)]
        assert len(ratios) == 5 and row['ratio']['median'] == statistics.median(ratios)
    done = run_tool('time_orders', '--only', 'nothing', folder='scripts')
    assert done.returncode == 2 and 'no case has that in its name' in done.stderr


def test_the_papers_sizes_are_those_of_the_presets() -> None:
    """Each case reads the maps that the network named gives."""
    cases = runpy.run_path(str(ROOT / 'scripts' / 'time_orders.py'))['cases']()
    known = {case.label: list(case.maps) for case in cases}
    presets = {
        'CLAN, ResNet-50/101, 2 scales': (448, 'clan_resnet50', 'clan_resnet101'),
        'CLAN, VGG-16, 2 scales': (448, 'clan_vgg16_bn'),
        'CLAN, VGG-16, 3 scales': (448, 'clan3_vgg16_bn'),
        'WARN, WRN, 10 classes, AD 3, AW 4': (32, 'warn_wrn28_10', 'warn_wrn40_10'),
        'WARN, WRN-50-4 at 224, 2 classes, AD 3, AW 4': (224, 'warn_wide_resnet50_4'),
        'WARN, WRN-50-4 at 448, 2 classes, AD 3, AW 4': (448, 'warn_wide_resnet50_4'),
    }
    for label, (size, *names) in presets.items():
        for name in names:
            with torch.device('meta'):
                model = timm.create_model(name)
            infos = [model.backbone.feature_info[i] for i in model.levels]
            assert known[label] == [(i['num_chs'], size // i['reduction']) for i in infos], name
