"""The page of a comparison: its files, without a browser; `test_page_browser` opens them."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from page_helpers import draw_images, make_comparison, results_of, save_network, script_content

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')
pytest.importorskip('statsmodels', reason='of the extra compare')

from fgplugins.errors import UserError
from fgplugins.page import command
from fgplugins.page.choosing import choose
from fgplugins.page.command import Settings, write_page
from fgplugins.page.plots import axis_of, cost_plot, strips
from fgplugins.page.rendering import _recipes
from fgplugins.utils.drawing import resize_map

ODD = [
    '<img src=x onerror=alert(1)>',
    'a&b',
    '"quoted" \'name\'',
    '</script><b>',
    ' '.join(['翠鳥'] * 12),
]
NO_MAPS = Settings(maps=0)


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return draw_images(tmp_path_factory.mktemp('drawn') / 'images', 42)


@pytest.fixture(scope='module')
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_network(tmp_path_factory.mktemp('network') / 'small')


@pytest.fixture(scope='module')
def odd(tmp_path_factory: pytest.TempPathFactory, images: list[str], network: str) -> Path:
    """A comparison with odd names of classes, real maps, and its page."""
    root = tmp_path_factory.mktemp('odd') / 'out'
    make_comparison(root, ODD, images, ('gap', 'warn', 'siou'), backbone=network)
    write_page([root], settings=Settings(maps=12))
    return root


def html(root: Path) -> str:
    return (root / 'report' / 'index.html').read_text(encoding='utf-8')


def data(root: Path) -> dict:
    return script_content(root / 'report' / 'page' / 'data.js')


def test_data_are_what_the_runs_said(odd: Path) -> None:
    (comparison,) = data(odd)['comparisons']
    assert comparison['classes'] == ODD
    assert len(comparison['files']) == len(comparison['labels']) == 40
    (backbone,) = comparison['backbones']
    (found,) = results_of(odd)['backbones']
    for row, result in zip(backbone['rows'], found['rows'], strict=True):
        for predicted, run in zip(row['predicted'], result['runs'], strict=True):
            with np.load(odd / 'cells' / run['key'] / 'scores.npz') as kept:
                assert predicted == kept['test_scores'].argmax(1).tolist()
                assert comparison['labels'] == kept['test_labels'].tolist()
        best = max(run['val']['top1'] for run in result['runs'])
        (shown,) = [run for run in result['runs'] if run['seed'] == row['shown']]
        assert shown['val']['top1'] == best


def test_what_is_fixed_and_broken_is_what_the_results_count(odd: Path) -> None:
    (comparison,) = data(odd)['comparisons']
    (backbone,) = comparison['backbones']
    labels = np.array(comparison['labels'])
    control = np.array(backbone['rows'][0]['predicted']) == labels
    for row, result in zip(
        backbone['rows'][1:], results_of(odd)['backbones'][0]['rows'][1:], strict=True
    ):
        own = np.array(row['predicted']) == labels
        compared = result['comparison']
        assert (own & ~control).sum(1).mean() == pytest.approx(compared['fixed'])
        assert (~own & control).sum(1).mean() == pytest.approx(compared['broken'])
        assert (own & ~control).all(0).nonzero()[0].tolist() == compared['fixed_always']


def test_names_are_text_in_every_file(odd: Path) -> None:
    text = html(odd)
    assert '&lt;img src=x onerror=alert(1)&gt;' in text
    assert '<img src=x' not in text
    assert len(re.findall('</script', text)) == len(re.findall('<script', text)) == 2
    for file in (odd / 'report' / 'page').rglob('*.js'):
        assert not set('<>&') & set(file.read_text(encoding='ascii')), file


def test_nothing_refers_to_the_network(odd: Path) -> None:
    files = [odd / 'report' / 'index.html', *(odd / 'report' / 'page').rglob('*.js')]
    for file in files:
        assert not re.search(
            r'https?:|(src|href)=.//|url\(.?//', file.read_text(encoding='utf-8').lower()
        ), file


def test_maps_are_those_of_the_method(odd: Path, images: list[str]) -> None:
    from fgplugins.page.looking import _open
    from fgplugins.page.reading import read_comparison

    comparison = read_comparison(odd)
    (of_page,) = data(odd)['comparisons']
    mapped = [i for i, flag in enumerate(of_page['maps']) if flag == '1']
    assert len(mapped) == 12
    assert {of_page['labels'][i] for i in mapped} == set(range(len(ODD)))
    place = mapped[3]
    (found,) = script_content(odd / 'report' / 'page' / '0' / 'maps' / f'{place}.js')
    for row in comparison.backbones[0].rows:
        loaded = _open(comparison, row)
        _, inputs = loaded.read_image(comparison.images[place])
        _, masks = loaded.look(inputs)
        levels = found[row.method]['levels']
        assert [level['of'] for level in levels] == [mask.shape[1] for mask in masks]
        for level, mask in zip(levels, masks, strict=True):
            for head, own in zip(level['heads'], mask[0].numpy(), strict=True):
                cells = np.frombuffer(base64.b64decode(head['cells']), np.uint8)
                wanted = resize_map(own, head['h'], head['w'])
                assert own.shape == (head['h'], head['w'])
                np.testing.assert_allclose(cells.reshape(wanted.shape) / 255, wanted, atol=0.01)
    truth, scores = comparison.labels[place], comparison.backbones[0].rows[2].scores[place].copy()
    scores[truth] = -np.inf
    for number, level in enumerate(found['siou']['rivals'], start=1):
        names = [head['title'].removeprefix(f'level {number}, ') for head in level['heads']]
        assert names == [ODD[truth], ODD[scores.argmax()]]
    assert 'rivals' not in found['warn']
    rows = {row['method']: row for row in of_page['backbones'][0]['rows']}
    assert rows['warn']['rivalReason'] == 'the maps of warn are not those of a single class'
    assert rows['siou']['rivalReason'] == ''


def test_a_network_without_a_map_says_why(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgplugins.methods import NoClassMap
    from fgplugins.methods.gap import GAP

    def none(*args: object, **given: object) -> list[torch.Tensor]:
        raise NoClassMap('a class token does not depend on the last map')

    root = tmp_path / 'out'
    shutil.copytree(odd, root)
    monkeypatch.setattr(GAP, 'attention', none)
    write_page([root], settings=Settings(maps=4))
    rows = {row['method']: row for row in data(root)['comparisons'][0]['backbones'][0]['rows']}
    assert rows['gap']['reason'] == 'a class token does not depend on the last map'
    assert rows['warn']['reason'] == ''


def test_the_size_is_said_and_a_new_page_takes_the_place_of_the_old(
    odd: Path, tmp_path: Path
) -> None:
    root, said = tmp_path / 'out', []
    shutil.copytree(odd, root)
    write_page([root], settings=Settings(maps=0, thumbnails=6), say=said.append)
    pages = [root / 'report' / 'index.html', *(root / 'report' / 'page').rglob('*.*')]
    size = sum(path.stat().st_size for path in pages) / 1e6
    assert said == [f'page of {size:.1f} MB: 40 test images, 0 with maps']
    assert len(list((root / 'report' / 'page').rglob('*.webp'))) == 6
    assert not list((root / 'report').glob('.*'))


def test_a_disk_without_room_is_refused(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(command.Files.write.__globals__['shutil'], 'disk_usage', lambda _: full)
    with pytest.raises(UserError, match='0 MB are free: fewer --maps'):
        write_page([odd], tmp_path / 'page', NO_MAPS)
    assert not list((tmp_path / 'page').iterdir())


def test_all_of_it_in_one_file(odd: Path, tmp_path: Path) -> None:
    one = write_page([odd], tmp_path, Settings(maps=5, single_file=True))
    assert [path.name for path in tmp_path.iterdir()] == [one.name] == ['report.html']
    text = one.read_text(encoding='utf-8')
    assert len(re.findall('data:image/webp;base64', text)) == 40 + 5
    assert 'src="page/' not in text
    assert len(re.findall('</script', text)) == 2
    limited = Settings(maps=5, single_file=True, most_mb=0.01)
    with pytest.raises(UserError, match=r'--single-file: .* more than --most-mb 0.01: fewer'):
        write_page([odd], tmp_path, limited)


def test_two_comparisons_are_on_one_page(odd: Path, images: list[str], tmp_path: Path) -> None:
    other = make_comparison(tmp_path / 'other', ['x', 'y'], images[:11], ('gap', 'clan'))
    write_page([odd, other], tmp_path / 'both', NO_MAPS)
    text = (tmp_path / 'both' / 'index.html').read_text(encoding='utf-8')
    both = script_content(tmp_path / 'both' / 'page' / 'data.js')['comparisons']
    assert [len(one['files']) for one in both] == [40, 9]
    assert [one['name'] for one in both] == ['out', 'other']  # of the same images
    for root in (odd, other):
        assert results_of(root)['backbones'][0]['verdict'] in text.replace('&#39;', "'")
    for number, count in ((0, 40), (1, 9)):
        pictures = (tmp_path / 'both' / 'page' / str(number)).rglob('*.webp')
        assert len(list(pictures)) == count


def test_a_run_that_failed_is_named_with_its_reason(images: list[str], tmp_path: Path) -> None:
    failed = {('warn', 1): 'killed (signal 9): out of <memory>?'}
    failed |= {('clan', seed): 'RuntimeError: no' for seed in range(3)}
    root = make_comparison(
        tmp_path / 'out', ['x', 'y'], images, ('gap', 'warn', 'clan'), failed=failed
    )
    write_page([root], settings=NO_MAPS)
    text = html(root)
    assert 'warn, seed 1</strong>: killed (signal 9): out of &lt;memory&gt;?' in text
    assert text.count('RuntimeError: no') == 3 + 1  # in the plot, too
    rows = data(root)['comparisons'][0]['backbones'][0]['rows']
    assert [(row['method'], row['seeds']) for row in rows] == [('gap', [0, 1, 2]), ('warn', [0, 2])]


@pytest.mark.parametrize('failed', [{}, {('gap', 0): 'no', ('gap', 1): 'no', ('gap', 2): 'no'}])
def test_a_single_method(images: list[str], tmp_path: Path, failed: dict) -> None:
    root = make_comparison(tmp_path / 'out', ['x', 'y'], images, ('gap',), failed=failed)
    write_page([root], settings=NO_MAPS)
    assert results_of(root)['backbones'][0]['verdict'] in html(root)


def test_many_classes_and_long_names(tmp_path: Path) -> None:
    images = draw_images(tmp_path / 'images', 242, side=16)
    names = [f'{i} 紅嘴藍鵲 the bird with a name that goes on and on ' * 3 for i in range(200)]
    root = make_comparison(tmp_path / 'out', names, images, right=0.4)
    write_page([root], settings=Settings(maps=0, thumbnails=10))
    text = html(root)
    pairs = results_of(root)['backbones'][0]['rows'][1]['pairs']
    assert len(pairs['mended']) > 8
    assert text.count('data-taken=') == len(pairs['mended']) + len(pairs['broken'])
    assert len(data(root)['comparisons'][0]['classes']) == 200


def test_what_is_no_finished_comparison_is_refused(
    odd: Path, tmp_path: Path, run_tool: Callable
) -> None:
    def refused(*arguments: str) -> str:
        ran = run_tool('report', *arguments)
        assert ran.returncode == 2, ran.stdout
        (line,) = ran.stderr.splitlines()
        return line

    assert 'is no comparison: give the folder' in refused(str(tmp_path))
    root = tmp_path / 'out'
    shutil.copytree(odd, root)
    (cell,) = root.glob('cells/warn-*-s1-*')
    (cell / 'scores.npz').write_bytes(b'')
    assert f'the scores of cell {cell.name} cannot be read' in refused(str(root))
    np.savez(cell / 'scores.npz', test_scores=np.zeros((3, 5)), test_labels=np.zeros(3))
    assert 'are not of the test images in split.json' in refused(str(root))
    (root / 'report' / 'results.json').unlink()
    assert 'has no report/results.json: run its command again' in refused(str(root))
    assert '--maps -1: must be a whole number' in refused(str(odd), '--maps', '-1')
    assert '--out DIR' in refused(str(odd), str(odd))


def test_the_tool_makes_it_anew(odd: Path, tmp_path: Path, run_tool: Callable) -> None:
    ran = run_tool('report', str(odd), '--out', str(tmp_path / 'page'), '--maps', '3')
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == str(tmp_path / 'page' / 'index.html')
    assert len(list((tmp_path / 'page' / 'page' / '0' / 'maps').iterdir())) == 3


def test_the_folder_check_is_kept_until_an_image_changes(
    images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgplugins.page import checking

    folder = tmp_path / 'images'
    shutil.copytree(Path(images[0]).parent, folder)
    own = [str(folder / Path(path).name) for path in images]
    shutil.copy(own[0], own[1])
    root = make_comparison(tmp_path / 'out', ['x', 'y'], own)
    calls = []

    def counted(*args: object) -> object:
        calls.append(args)
        return real(*args)

    real = checking.check_folder
    monkeypatch.setattr(checking, 'check_folder', counted)
    first = checking.checked_folder(root, 1, lambda done, total: None)
    assert any('same file' in finding['text'] for finding in first['findings'])
    again = checking.checked_folder(root, 1, lambda done, total: None)
    assert len(calls) == 1
    assert json.loads(json.dumps(first['findings'])) == again['findings']
    shutil.copy(own[2], own[1])
    checking.checked_folder(root, 1, lambda done, total: None)
    assert len(calls) == 2


def test_of_every_class_one_and_then_what_changes() -> None:
    labels = np.repeat(np.arange(5), 20)
    changed = np.zeros(100)
    changed[[3, 4, 5, 50]] = [0.2, 0.9, 0.5, 1.0]
    chosen = choose(labels, changed, 8)
    assert chosen == sorted(chosen)
    assert set(labels[chosen]) == set(range(5))
    assert {3, 4, 5, 50} <= set(chosen)
    assert {4, 50} <= set(choose(labels, changed, 5))
    assert len(choose(labels, changed, 3)) == 3
    assert choose(labels, changed, 500) == list(range(100))
    counts = np.bincount(labels[choose(labels, np.zeros(100), 25)])
    assert counts.tolist() == [5] * 5
    assert choose(labels, changed, 30, seed=1) != choose(labels, changed, 30, seed=2)


def test_marks_stand_where_the_values_are(images: list[str], tmp_path: Path) -> None:
    costs = {('a_network', row): {'macs': macs} for row, macs in (('gap', 4e8), ('warn', 5e8))}
    root = make_comparison(tmp_path / 'out', ['x', 'y', 'z'], images, costs=costs)
    rows = results_of(root)['backbones'][0]['rows']
    accuracy, difference, marks = strips(rows)
    for row, strip in zip(rows, marks, strict=True):
        for run, (x, _, _) in zip(row['runs'], strip.dots, strict=True):
            value = accuracy.low + x / 100 * (accuracy.high - accuracy.low)
            assert value == pytest.approx(run['test']['top1'], abs=0.01)
    place, compared = marks[1].difference, rows[1]['comparison']
    assert place['low'] < place['at'] < place['high']
    assert place['at'] == difference.at(compared['difference'])
    assert '0' in [text for _, text in difference.ticks]
    plot = cost_plot(rows)
    by_name = {point['name']: point for point in plot.points}
    assert by_name['gap']['x'] < by_name['warn']['x']
    assert by_name['gap']['best']
    lower = min(rows, key=lambda row: row['test_top1']['mean'])['method']
    assert by_name[lower]['y'] == max(point['y'] for point in plot.points)
    assert cost_plot(rows[:1]) is None
    equal = axis_of([90.0, 90.0])
    assert equal.low < 90 < equal.high
    assert [text for _, text in axis_of([0, 10]).ticks] == ['0', '5', '10']


def test_recipes_are_said_by_length_batch_and_rate() -> None:
    quick = {'epochs': 30, 'lr': 0.005, 'arguments': {'heads': 2}}
    whole = {
        'train_cfg': {'max_epochs': 6},
        'train_dataloader': {'batch_size': 32},
        'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 0.0005}},
        'size': 128,
    }
    cells = [{'method': m, 'recipe': quick} for m in ('gap', 'warn', 'gap')]
    assert _recipes(cells) == ['epochs 30, lr 0.005']
    cells[1] = {'method': 'warn', 'recipe': {**quick, 'lr': 0.002}}
    assert _recipes(cells) == ['gap: epochs 30, lr 0.005', 'warn: epochs 30, lr 0.002']
    said = 'epochs 6, batch_size 32, lr 0.0005, size 128'
    assert _recipes([{'method': 'siou', 'recipe': whole}]) == [said]
