"""Messy folders through data set, check, two training steps and a test, all or nothing."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import messy_folders
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import nn
from torch.utils.data import DataLoader

from fgplugins.data.images import check_readable, printable
from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain import FineGrainedImages, LoadImage

init_default_scope('mmpretrain')

PIPELINE = [dict(type='LoadImage'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The networks are so small that threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def small_model(num_classes: int) -> nn.Module:
    return MODELS.build(
        dict(
            type='FineGrainedClassifier',
            backbone=dict(
                type='ResNet', depth=18, stem_channels=8, base_channels=8, num_stages=3,
                out_indices=(0, 1, 2), strides=(1, 2, 2), dilations=(1, 1, 1),
            ),
            head=dict(type='WARNHead', num_classes=num_classes),
            data_preprocessor=dict(
                type='ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True,
                num_classes=num_classes,
            ),
        )
    )  # fmt: skip


def train_and_test(train: FineGrainedImages, test: FineGrainedImages) -> None:
    torch.manual_seed(0)
    model = small_model(len(train.metainfo['classes'])).train()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3))
    loader = DataLoader(train, 3, shuffle=True, collate_fn=pseudo_collate)
    for _, batch in zip(range(2), loader, strict=False):
        losses = model.train_step(batch, wrapper)
        assert all(torch.isfinite(value) for value in losses.values())
    model.eval()
    with torch.no_grad():
        results = [
            r for b in DataLoader(test, 3, collate_fn=pseudo_collate) for r in model.test_step(b)
        ]
    assert [int(r.gt_label) for r in results] == test.get_gt_labels().tolist()
    assert all(torch.isfinite(r.pred_score).all() for r in results)


def check_pixels(expected: messy_folders.Picture, path: str) -> None:
    image = LoadImage().transform({'img_path': path})['img']
    assert image.shape == (*expected.size, 3) and image.dtype == np.uint8, path
    for row, colour in ((image[0], expected.first), (image[-1], expected.last)):
        assert np.abs(row - np.array(colour)[::-1]).max() < 12, (path, row[0], colour)  # BGR


def run(folder: Path, seed: int) -> None:
    """One folder: either the right result, or one line that names what is wrong."""
    expected = messy_folders.make_messy(folder, seed)
    try:
        train, test = (
            FineGrainedImages(str(folder), split, pipeline=PIPELINE, serialize_data=False)
            for split in ('train', 'test')
        )
        check_readable(train, test)
        train_and_test(train, test)
    except UserError as error:
        line = str(error)
        assert len(line.splitlines()) == 1 and 'BytesIO' not in line, line
        assert expected.refused, (line, expected.mess)
        for name in expected.refused:
            assert printable(name) in line, (name, line, expected.mess)
        return
    assert not expected.refused, f'nothing said of {expected.refused}: {expected.mess}'
    for split, found in (('train', train), ('test', test)):
        assert list(found.metainfo['classes']) == expected.classes, expected.mess
        counts = np.bincount(found.get_gt_labels(), minlength=len(expected.classes)).tolist()
        assert counts == expected.counts[split], expected.mess
        assert found.notes[0].startswith(f'{split}: {sum(counts)} images of {len(counts)} classes')
    paths = [d.get_data_info(i)['img_path'] for d in (train, test) for i in range(len(d))]
    assert sorted(paths) == sorted(expected.pictures), expected.mess
    for path, picture in expected.pictures.items():
        check_pixels(picture, path)


@pytest.mark.parametrize('seed', range(20))
def test_a_messy_folder_ends_right_or_in_a_line(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(20, 220))
def test_many_messy_folders_end_right_or_in_a_line(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed)
