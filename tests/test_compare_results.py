"""From the cells of a comparison to its results, tables and pictures."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('statsmodels', reason='of the extra compare')

from fgplugins.compare import tables
from fgplugins.compare.calibration import calibration_error, fit_temperature
from fgplugins.compare.cells import Cell
from fgplugins.compare.plots import Point, front, write_plots
from fgplugins.compare.results import collect
from fgplugins.compare.tables import as_csv, as_markdown, summary, write_tables

CLASSES = ['crow', 'duck', 'eagle', 'gull_*']
IMAGES, VAL = 120, 40
NETWORK = 'resnet18'
ASKED = {'command': 'fgplugins compare birds', 'images': {'train': 400, 'val': VAL, 'test': IMAGES}}


def write_cell(root: Path, cell: Cell, gain: float, images: int = IMAGES) -> None:
    """A finished cell whose scores favour the truth by so much."""
    folder = cell.folder(root)
    folder.mkdir(parents=True)
    (folder / 'cell.json').write_text(json.dumps(cell.as_json()))
    rng = np.random.default_rng([cell.seed, *cell.method.encode()])
    content = {}
    for part, count in (('val', VAL), ('test', images)):
        labels = np.arange(count) % len(CLASSES)
        hard = np.random.default_rng(5).normal(0, 1, count)  # the same for every cell
        scores = rng.normal(0, 1, (count, len(CLASSES))).astype(np.float32)
        scores[np.arange(count), labels] += 1.2 + gain + hard
        content |= {f'{part}_scores': 2 * scores, f'{part}_labels': labels}
    np.savez(folder / 'scores.npz', **content)
    result = {
        'form': 1, 'cell': cell.as_json(), 'key': cell.key, 'val': {'top1': 1.0},
        'test': {'top1': 1.0}, 'train': {'top1': None}, 'seconds': {'train': 41.2 + cell.seed},
        'epochs': 20, 'hardware': {'device': 'cpu'}, 'versions': {'torch': '2'}, 'command': 'x',
    }  # fmt: skip
    (folder / 'result.json').write_text(json.dumps(result))


def make(
    root: Path, gains: Mapping[str, float], seeds: int, lost: Sequence[tuple[str, int]] = ()
) -> list[Cell]:
    """Finished cells, and failed ones."""
    cells = []
    for method, gain in gains.items():
        for seed in range(seeds):
            cell = Cell('abc', NETWORK, method, 'quick', {'lr': 0.001}, seed)
            cells.append(cell)
            if (method, seed) in lost:
                cell.folder(root).mkdir(parents=True)
                reason = json.dumps({'reason': 'CUDA out of memory'})
                (cell.folder(root) / 'failed.json').write_text(reason)
            else:
                write_cell(root, cell, gain)
    return cells


def collected(root: Path, cells: Sequence[Cell], **costs: Mapping[str, float]) -> dict:
    return collect(root, cells, ASKED, CLASSES, {(NETWORK, m): c for m, c in costs.items()})


@pytest.fixture(scope='module')
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Cell], dict]:
    """Two methods, the control asked for last; a seed of one method failed."""
    root = tmp_path_factory.mktemp('comparison')
    cells = make(root, {'warn': 1.5, 'att2': 0.1, 'gap': 0.0}, 4, lost=[('att2', 2)])
    costs = {'warn': {'macs': 2e9}, 'gap': {'macs': 1.8e9}, 'att2': {'macs': 1.9e9}}
    return root, cells, collected(root, cells, **costs)


def scores(root: Path, cell: Cell) -> dict[str, np.ndarray]:
    with np.load(cell.folder(root) / 'scores.npz') as kept:
        return dict(kept)


def test_the_control_comes_first_and_the_others_as_asked(compared: tuple) -> None:
    rows = compared[2]['backbones'][0]['rows']
    assert [row['method'] for row in rows] == ['gap', 'warn', 'att2']
    assert rows[0]['comparison'] is None


def test_figures_are_those_of_the_scores(compared: tuple) -> None:
    root, cells, results = compared
    rows = {row['method']: row for row in results['backbones'][0]['rows']}
    accuracies = []
    for cell in cells[:4]:
        kept = scores(root, cell)
        run = rows['warn']['runs'][cell.seed]
        right = sum(
            int(row.argmax()) == label
            for row, label in zip(kept['test_scores'], kept['test_labels'], strict=True)
        )
        accuracies.append(100 * right / IMAGES)
        assert run['test']['top1'] == pytest.approx(accuracies[-1])
        temperature = fit_temperature(kept['val_scores'], kept['val_labels'])
        assert run['temperature'] == temperature
        assert run['test']['ece_scaled'] == calibration_error(
            kept['test_scores'], kept['test_labels'], temperature
        )
    assert rows['warn']['test_top1'] == {
        'mean': pytest.approx(np.mean(accuracies)),
        'deviation': pytest.approx(np.std(accuracies, ddof=1)),
    }
    assert rows['warn']['cost'] == {'train_seconds': pytest.approx(42.7), 'macs': 2e9}


def test_only_the_seeds_of_both_are_compared(compared: tuple) -> None:
    _, cells, results = compared
    found = results['backbones'][0]
    warn, att2 = found['rows'][1:]
    assert warn['comparison']['seeds'] == [0, 1, 2, 3]
    assert att2['comparison']['seeds'] == [0, 1, 3]
    assert att2['failed'] == [{'seed': 2, 'key': cells[6].key, 'reason': 'CUDA out of memory'}]
    assert warn['comparison']['found']
    assert found['verdict'].startswith('warn is better than the plain network by ')
    assert found['remarks'][-1] == 'Some runs of att2 are not finished, and not counted.'


def test_classes_and_confusions_add_up(compared: tuple) -> None:
    root, cells, results = compared
    warn = results['backbones'][0]['rows'][1]
    total = sum(c['difference'] * c['images'] for c in warn['classes']) / IMAGES
    assert total == pytest.approx(warn['comparison']['difference'])
    gains = [c['difference'] for c in warn['classes']]
    assert gains == sorted(gains, reverse=True)
    counts = {}
    for side, of in (('control', cells[8:]), ('method', cells[:4])):
        counts[side] = np.zeros((4, 4))
        for cell in of:
            kept = scores(root, cell)
            for row, label in zip(kept['test_scores'], kept['test_labels'], strict=True):
                counts[side][label, row.argmax()] += 1 / 4
    pairs = warn['pairs']['mended'] + warn['pairs']['broken']
    changed = (counts['method'] != counts['control']) & ~np.eye(4, dtype=bool)
    assert len(pairs) == changed.sum() > 0
    for pair in pairs:
        i, j = CLASSES.index(pair['truth']), CLASSES.index(pair['taken_for'])
        for side in ('control', 'method'):
            assert pair[side] == pytest.approx(counts[side][i, j])
    assert all(pair['difference'] < 0 for pair in warn['pairs']['mended'])
    assert all(pair['difference'] > 0 for pair in warn['pairs']['broken'])


def test_the_best_is_chosen_by_validation_images(compared: tuple) -> None:
    root, cells, results = compared
    accuracy = {
        cell: (scores(root, cell)['val_scores'].argmax(axis=1) == np.arange(VAL) % 4).mean()
        for cell in cells
        if cell is not cells[6]
    }
    assert results['best']['method'] == 'warn'
    assert results['best']['key'] == max(cells[:4], key=accuracy.get).key


def test_no_test_image_chooses_the_best(tmp_path: Path) -> None:
    """The method that is better on the test images alone is not taken."""
    cells = make(tmp_path, {'gap': 2.0, 'warn': 0.0}, 2)
    for cell in cells[2:]:
        kept = scores(tmp_path, cell)
        kept['test_scores'] = np.eye(4, dtype=np.float32)[kept['test_labels']]
        np.savez(cell.folder(tmp_path) / 'scores.npz', **kept)
    results = collected(tmp_path, cells)
    assert results['backbones'][0]['rows'][1]['test_top1']['mean'] == 100
    assert results['best']['method'] == 'gap'


def test_the_same_cells_give_the_same_bytes(compared: tuple, tmp_path: Path) -> None:
    root, cells, results = compared
    shutil.copytree(root / 'cells', tmp_path / 'cells')
    again = collected(tmp_path, cells, **{
        row['method']: row['cost'] for row in results['backbones'][0]['rows']
    })  # fmt: skip
    assert json.dumps(again, allow_nan=False) == json.dumps(results, allow_nan=False)
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    drawn, redrawn = (write_plots(results, tmp_path / name) for name in ('one', 'two'))
    for file, other in zip(drawn, redrawn, strict=True):
        assert file.read_bytes() == other.read_bytes()


def test_trials_are_listed_apart(tmp_path: Path) -> None:
    cells = make(tmp_path, {'gap': 0.0, 'warn': 0.5}, 2)
    trial = Cell('abc', NETWORK, 'warn', 'quick', {'lr': 0.1}, 0, trial=3)
    trial.folder(tmp_path).mkdir(parents=True)
    (trial.folder(tmp_path) / 'result.json').write_text(json.dumps({'val': {'top1': 99.0}}))
    other = Cell('abc', NETWORK, 'warn', 'quick', {'lr': 9.0}, 0, trial=4)
    results = collected(tmp_path, [*cells, trial, other])
    without = collected(tmp_path, cells)
    assert results['backbones'] == without['backbones']
    assert [t['key'] for t in results['trials']] == [trial.key, other.key]
    assert results['trials'][0]['val'] == {'top1': 99.0}
    assert results['trials'][1]['val'] is None
    assert results['trials'][1]['reason'] == 'not finished'
    assert 'Trials of the tuning, on validation images only: 2.' in as_markdown(results)


@pytest.mark.parametrize(
    ('broken', 'reason'),
    [
        ('not finished', 'not finished'),
        ('no scores', 'its results cannot be read: '),
        ('nan', 'its scores are not finite'),
        ('other images', 'its test images are not those of gap-'),
        ('damaged', 'failed.json cannot be read: '),
    ],
)
def test_what_cannot_be_read_is_a_failed_cell(tmp_path: Path, broken: str, reason: str) -> None:
    cells = make(tmp_path, {'gap': 0.0, 'warn': 0.5}, 2)
    folder = cells[3].folder(tmp_path)
    if broken in ('not finished', 'damaged'):
        (folder / 'result.json').unlink()
        if broken == 'damaged':
            (folder / 'failed.json').write_text('{')
    elif broken == 'no scores':
        (folder / 'scores.npz').unlink()
    elif broken == 'nan':
        kept = scores(tmp_path, cells[3])
        kept['test_scores'][3, 1] = np.nan
        np.savez(folder / 'scores.npz', **kept)
    else:
        shutil.rmtree(folder)
        write_cell(tmp_path, cells[3], 0.5, images=60)
    row = collected(tmp_path, cells)['backbones'][0]['rows'][1]
    assert [run['seed'] for run in row['runs']] == [0]
    assert len(row['failed']) == 1
    assert row['failed'][0]['reason'].startswith(reason)


def test_without_the_control_nothing_is_compared(tmp_path: Path) -> None:
    cells = make(tmp_path, {'gap': 0, 'warn': 1}, 2, lost=[('gap', 0), ('gap', 1)])
    found = collected(tmp_path, cells)['backbones'][0]
    assert found['verdict'].startswith('The plain network has no finished run')
    assert found['rows'][1]['comparison'] is None
    assert found['best']['method'] == 'warn'


def test_nothing_finished(tmp_path: Path) -> None:
    cells = make(tmp_path, {'gap': 0}, 1, lost=[('gap', 0)])
    results = collected(tmp_path, cells)
    assert results['best'] is None
    assert 'Not finished:' in as_markdown(results)
    assert len(write_plots(results, tmp_path)) == 2


def test_markdown(compared: tuple, tmp_path: Path) -> None:
    results = compared[2]
    write_tables(results, tmp_path)
    text = (tmp_path / 'results.md').read_text(encoding='utf-8')
    assert f'**{results["backbones"][0]["verdict"]}**' in text
    assert '4 classes; images: 400 for training, 40 for validation, 120 for testing.' in text
    assert '- `att2`, seed 2: CUDA out of memory' in text
    assert 'gull\\_\\*' in text
    assert '*' not in text.replace('**', '').replace('\\*', '')
    rows = [line for line in text.splitlines() if line.startswith('|')]
    assert len(rows) == 2 + 3
    assert {line.count('|') for line in rows} == {rows[0].count('|')}


def test_names_are_no_marks_of_markdown() -> None:
    assert tables._plain('[a](b) &lt; c\nd') == r'\[a\](b) \&lt; c d'


def test_columns_without_values_are_left_out(compared: tuple, tmp_path: Path) -> None:
    assert 'MACs' in summary(compared[2]['backbones'][0]).header
    alone = collected(tmp_path, make(tmp_path, {'gap': 0}, 1))
    table = summary(alone['backbones'][0])
    assert table.header == [
        'method', 'seeds', 'test top-1', 'calibration', 'val top-1', 'training'
    ]  # fmt: skip
    assert '±' not in table.text()


def test_deployed_form_beside_the_trained_one(tmp_path: Path) -> None:
    cells = make(tmp_path, {'gap': 0, 'siou': 0.5}, 2)
    same, other = {'macs': 2e9, 'deployed_macs': 2e9}, {'macs': 3e9, 'deployed_macs': 2e9}
    same['latency_ms'] = 4.06
    other |= {'latency_ms': 4.2, 'latency_times_control': 1.034}
    text = as_markdown(collected(tmp_path, cells, gap=same, siou=other))
    assert '| 3.000 G, deployed 2.000 G | 1.03 x |' in ' '.join(text.split())
    assert text.count(', deployed ') == 1


def test_csv(compared: tuple) -> None:
    results = compared[2]
    rows = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert [row['method'] for row in rows] == ['gap', 'warn', 'att2']
    warn = results['backbones'][0]['rows'][1]
    assert float(rows[1]['difference']) == warn['comparison']['difference']
    assert float(rows[1]['macs']) == 2e9
    assert rows[0]['difference'] == ''
    assert (rows[2]['failed'], rows[2]['reason']) == ('1', 'CUDA out of memory')
    assert len(rows[1]['test_top1_of_seeds'].split()) == 4


def test_front() -> None:
    a, b, c, d, e = (
        Point(name, NETWORK, macs, accuracy)
        for name, macs, accuracy in
        (('a', 1, 80), ('b', 2, 79), ('c', 3, 90), ('d', 3, 85), ('e', 9, 90))
    )  # fmt: skip
    assert front([e, d, c, b, a]) == [a, c]


@pytest.mark.parametrize('case', ['control', 'one seed', 'many'])
def test_plots(case: str, tmp_path: Path) -> None:
    """What is drawn fits: nothing is cut off at the edges of the pictures."""
    gains = {'gap': 0.0}
    if case != 'control':
        gains |= {'warn:heads=8,taps=3,kernel_size=1,diversity=0.01,gate_norm=True': 0.4}
    if case == 'many':
        gains |= {'att2': -0.2, 'clan': 0.1, 'siou': 0.3, 'art': 0.0, 'gap:head=mean': -0.1}
    lost = [('art', seed) for seed in range(2)] if case == 'many' else []
    seeds = 1 if case == 'one seed' else 2
    cells = make(tmp_path, gains, seeds, lost)
    costs = {name: {'macs': 1e9 * (1 + i % 3)} for i, name in enumerate(gains)}
    files = write_plots(collected(tmp_path, cells, **costs), tmp_path)
    assert [file.name for file in files] == [
        'seeds_resnet18.svg', 'seeds_resnet18.png', 'cost.svg', 'cost.png'
    ]  # fmt: skip
    for file in files[1::2]:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert('L'))
        assert pixels.shape[1] == 820
        for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
            assert (edge == 255).all(), file
