"""What a test writes of its results: against plain loops, and from the command line."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

import csv
import random
from pathlib import Path

import numpy as np
import torch
from helpers import image_folder
from mmpretrain.structures import DataSample
from PIL import Image

from fgplugins.utils.result_pictures import draw_confusion, draw_sheet
from fgplugins.zoo_mmpretrain.running.results import (
    Prediction,
    Predictions,
    Results,
    report,
)

CLASSES = ('finch', 'robin', 'wren', 'gull', '乌鸦, "crow"')


def made_up(count: int = 300) -> list[Prediction]:
    """Predictions over the first four classes; gulls are always right."""
    draw = random.Random(0)
    found = []
    for i in range(count):
        truth = draw.randrange(4)
        predicted = truth if truth == 3 or draw.random() < 0.6 else draw.randrange(5)
        found.append(Prediction(f'{i}.jpg', i, truth, predicted, draw.random()))
    return found


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.reader(file))


def test_tables_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    predictions = made_up()
    results = Results(predictions, CLASSES)
    counts = [[0] * 5 for _ in range(5)]
    for p in predictions:
        counts[p.truth][p.predicted] += 1
    assert results.counts.tolist() == counts

    per_class = {}
    for y in range(4):  # the fifth has no images
        total = sum(counts[y])
        per_class[CLASSES[y]] = (counts[y][y], total, 100 * counts[y][y] / total)
    found = results.per_class()
    assert {row[0]: row[1:4] for row in found} == per_class
    assert [row[3] for row in found] == sorted(row[3] for row in found)
    for name, _, _, _, rival, times in found:
        others = [c for j, c in enumerate(counts[CLASSES.index(name)]) if CLASSES[j] != name]
        assert times == max(others) and (rival == '') == (times == 0)

    pairs = [
        (CLASSES[i], CLASSES[j], counts[i][j], sum(counts[i]))
        for i in range(5) for j in range(5) if i != j and counts[i][j]
    ]  # fmt: skip
    assert sorted(results.pairs()) == sorted(pairs)
    assert [p[2] for p in results.pairs()] == sorted((p[2] for p in pairs), reverse=True)
    wrong = [p for p in predictions if p.truth != p.predicted]
    assert sorted(results.wrong) == sorted(wrong)
    assert [p.score for p in results.wrong] == sorted((p.score for p in wrong), reverse=True)

    files = results.write(tmp_path / 'out', dataset=None)
    assert [file.name for file in files] == [
        'per_class.csv', 'confusion_matrix.csv', 'confusion_matrix.png', 'confused_pairs.csv',
        'misclassified.csv',  # no pictures: the files are not there
    ]  # fmt: skip
    header, *matrix = rows_of(tmp_path / 'out/confusion_matrix.csv')
    assert header[1:] == list(CLASSES)
    assert [[int(c) for c in row[1:]] for row in matrix] == counts
    header, *rows = rows_of(tmp_path / 'out/misclassified.csv')
    assert header == ['file', 'truth', 'prediction', 'score'] and len(rows) == len(wrong)
    assert rows[0][0] == results.wrong[0].file
    assert len(rows_of(tmp_path / 'out/per_class.csv')) == 1 + 4


def sample(scores: list[float], label: object, **meta: object) -> dict:
    made = DataSample(metainfo=meta).set_pred_score(torch.tensor(scores))
    return (made if label is None else made.set_gt_label(label)).to_dict()


def test_predictions_are_kept_in_order() -> None:
    metric = Predictions()
    metric.process(None, [sample([0.2, 0.5, 0.3], 1, img_path='a.jpg', sample_idx=0)])
    metric.process(None, [sample([0.7, 0.1, 0.2], 2, sample_idx=1)])
    assert metric.evaluate(2) == {}
    assert metric.found == [
        Prediction('a.jpg', 0, 1, 1, pytest.approx(0.5)),
        Prediction(None, 1, 2, 0, pytest.approx(0.7)),
    ]
    assert metric.num_classes == 3


@pytest.mark.parametrize('label', [[0, 2], None], ids=['several', 'none'])
def test_images_without_one_class_are_skipped(
    label: object, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    metric = Predictions()
    metric.process(None, [sample([0.2, 0.5, 0.3], label)])
    metric.evaluate(1)
    assert report(metric, tmp_path / 'out') == [] and not (tmp_path / 'out').exists()
    out = capsys.readouterr().out
    assert out.startswith('note: no tables by class') and len(out.splitlines()) == 1


def test_nothing_wrong(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    metric = Predictions()
    metric.process(None, [sample([0.9, 0.1], 0), sample([0.2, 0.8], 1)])
    metric.evaluate(2)
    (tmp_path / 'misclassified.png').write_bytes(b'of an earlier test')
    files = report(metric, tmp_path)
    assert '0 of 2 images are misclassified' in capsys.readouterr().out
    assert (tmp_path / 'misclassified.png') not in files
    assert not (tmp_path / 'misclassified.png').exists()
    assert rows_of(tmp_path / 'misclassified.csv') == [['file', 'truth', 'prediction', 'score']]


def test_a_table_on_the_terminal_is_short(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    metric = Predictions()
    for y in range(40):
        metric.process(None, [sample(np.eye(40)[(y + 1) % 40].tolist(), y)])
    metric.evaluate(40)
    report(metric, tmp_path)
    out = capsys.readouterr().out
    assert 'worst first (10 of 40)' in out and 'most confused (10 of 40)' in out
    assert len(out.splitlines()) < 35 and max(map(len, out.splitlines()[:-1])) < 100


@pytest.mark.parametrize('classes', [2, 35, 200])
def test_every_cell_of_the_matrix_is_seen(classes: int, tmp_path: Path) -> None:
    """Blue where right, red for a single error in fifty, white elsewhere."""
    counts = np.diag(np.full(classes, 49))
    counts[1, 0] = 1
    path = draw_confusion(counts, [f'class {y}' for y in range(classes)], tmp_path / 'a.png')
    pixels = np.asarray(Image.open(path).convert('RGB')).astype(int)
    red, blue = (pixels[..., c] - pixels[..., 2 - c] for c in (0, 2))
    assert max(pixels.shape) < 4000
    cell = (red > 20).sum()
    assert cell >= 100  # at least 10 x 10 pixels
    blues = (blue > 60).sum()
    assert blues == pytest.approx(classes * cell, rel=0.15)


def test_pictures_of_any_kind(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, s, np.uint8) for s in ((9, 30, 3), (40, 40, 1), (50, 8))] * 3
    path = draw_sheet(images, [['US$10 (90 %)', 'true: a_b^c', 'x' * 99]] * 9, tmp_path / 'a.png')
    assert np.asarray(Image.open(path)).std() > 20


@pytest.mark.slow
def test_a_matrix_of_very_many_classes_is_no_larger(tmp_path: Path) -> None:
    path = draw_confusion(np.eye(400, dtype=int), list(map(str, range(400))), tmp_path / 'a.png')
    with Image.open(path) as picture:
        assert max(picture.size) < 4500


def test_from_the_command_line(run_tool: object, tmp_path: Path) -> None:
    """A folder's files by name, and where the tables are; digits, which are arrays, by number."""
    import argparse

    from fgplugins.zoo_mmpretrain.running import configs, models

    def untrained(name: str, **options: object) -> None:
        arguments = dict(config=name, cfg_options=options, work_dir=None, data_root=None)
        model = models.check_model(configs.load_config(argparse.Namespace(**arguments)))
        torch.save({'state_dict': model.state_dict()}, tmp_path / 'a.pth')

    narrow = {
        'model.head.num_classes': 3, 'model.backbone.depth': 18, 'model.backbone.stem_channels': 8,
        'model.backbone.base_channels': 8,
    }  # fmt: skip
    untrained('gap_r50_cub', **narrow)
    image_folder(tmp_path / 'birds', {'train': 1, 'test': 3})
    done = run_tool(
        'test', 'gap_r50_cub', 'a.pth', '--data-root', 'birds', '--quiet', '--cfg-options',
        'test_dataloader.num_workers=0', *(f'{k}={v}' for k, v in narrow.items()),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = Path('work_dirs/gap_r50_cub/test/a')
    assert f'\nresults: {folder}: per_class.csv, ' in done.stdout
    assert 'note' not in done.stdout and 'mmengine' not in done.stdout
    _, *rows = rows_of(tmp_path / folder / 'misclassified.csv')
    assert rows and all((tmp_path / row[0]).parent.name == row[1] != row[2] for row in rows)
    assert f'\n{len(rows)} of 9 images are misclassified\n' in done.stdout
    assert np.asarray(Image.open(tmp_path / folder / 'misclassified.png')).std() > 20

    untrained('gap_cnn_digits')
    done = run_tool(
        'test', 'gap_cnn_digits', 'a.pth', '--out', 'mine', '--cfg-options',
        'test_dataloader.dataset.num_images=30',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, *rows = rows_of(tmp_path / 'mine/misclassified.csv')
    assert rows and all(0 <= int(row[0]) < 30 for row in rows)
    assert (tmp_path / 'mine/misclassified.png').is_file()
    (tmp_path / 'taken').write_text('')
    done = run_tool('test', 'gap_cnn_digits', 'a.pth', '--out', 'taken')
    assert done.returncode == 2 and 'error: --out taken: is a file, not a folder' in done.stderr
