"""Colour normalisation against loops over Torch7's definitions, and as a step of a pipeline."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import image_folder
from PIL import Image

from fgplugins.data.local_contrast import locally_normalised, rgb_to_yuv
from fgplugins.errors import UserError

PACK = dict(type='PackInputs')
STEPS = [dict(type='LoadImage'), dict(type='Resize', scale=(12, 12))]


def naive_gaussian(size: int = 7, sigma: float = 0.25) -> list[float]:
    """Torch7's image.gaussian1D, whose centre counts from one, divided by its sum."""
    centre = 0.5 * size + 0.5
    values = [math.exp(-(((i - centre) / (sigma * size)) ** 2) / 2) for i in range(1, size + 1)]
    return [value / sum(values) for value in values]


def naive_blur(image: list[list[float]]) -> list[list[float]]:
    """Zero padding, and the kernel along both sides at once."""
    kernel, H, W = naive_gaussian(), len(image), len(image[0])
    out = [[0.0] * W for _ in range(H)]
    for y in range(H):
        for x in range(W):
            for i in range(7):
                for j in range(7):
                    if 0 <= y + i - 3 < H and 0 <= x + j - 3 < W:
                        out[y][x] += kernel[i] * kernel[j] * image[y + i - 3][x + j - 3]
    return out


def naive_normalisation(image: list[list[float]]) -> list[list[float]]:
    """Torch7's SpatialContrastiveNormalization of one channel."""
    H, W = len(image), len(image[0])
    every = [(y, x) for y in range(H) for x in range(W)]
    coef = naive_blur([[1.0] * W for _ in range(H)])
    sums = naive_blur(image)
    v = [[0.0] * W for _ in range(H)]
    for y, x in every:
        v[y][x] = image[y][x] - sums[y][x] / coef[y][x]
    squares = naive_blur([[value**2 for value in row] for row in v])
    out = [[0.0] * W for _ in range(H)]
    for y, x in every:
        deviation = math.sqrt(squares[y][x]) / coef[y][x]
        out[y][x] = v[y][x] / (deviation if deviation > 1e-4 else 1e-4)
    return out


@pytest.mark.parametrize(('H', 'W'), [(11, 8), (7, 7), (3, 10), (1, 1), (2, 1)])
def test_brightness_follows_torch(H: int, W: int) -> None:
    y = np.random.default_rng(0).uniform(0, 255, (H, W))
    theirs = np.array(naive_normalisation(y.tolist()))
    assert np.abs(locally_normalised(y) - theirs).max() < 1e-10


def test_brightness_below_the_threshold() -> None:
    y = 100 + 1e-5 * np.random.default_rng(0).uniform(-1, 1, (9, 9))
    ours = locally_normalised(y)
    assert np.abs(ours - np.array(naive_normalisation(y.tolist()))).max() < 1e-8
    assert np.abs(ours).max() < 0.3, 'divided by the threshold, not by a deviation far below it'
    assert np.abs(locally_normalised(np.full((32, 32), 173.3))).max() < 1e-8, 'an even image is 0'


def test_brightness_keeps_no_scale() -> None:
    y = np.random.default_rng(0).uniform(0, 255, (20, 16))
    ours = locally_normalised(y)
    assert np.allclose(locally_normalised(3 * y + 7), ours, atol=1e-10)
    assert np.allclose(locally_normalised(y[:, ::-1]), ours[:, ::-1], atol=1e-10)
    assert np.allclose(locally_normalised(y.T), ours.T, atol=1e-10)


def test_yuv_of_known_colours() -> None:
    image = np.array([[[255, 0, 0], [0, 0, 255], [80, 80, 80]]], np.uint8)
    red, blue, grey = rgb_to_yuv(image)[0]
    assert np.allclose(red, (255 * 0.299, 255 * -0.14713, 255 * 0.615))
    assert np.allclose(blue, (255 * 0.114, 255 * 0.436, 255 * -0.10001))
    assert np.allclose(grey, (80, 0, 0), atol=1e-2)


def test_a_step_of_a_pipeline(room: ModuleType) -> None:
    bgr = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    step = room.LocalContrastYUV(mean=(1.5, -2.0), std=(3.0, 7.0))
    out = step.transform({'img': bgr})['img']
    assert out.dtype == np.float32 and out.shape == bgr.shape
    assert np.array_equal(step.transform({'img': bgr.astype(np.float32)})['img'], out)
    y = [[0.0] * 9 for _ in range(12)]
    for i in range(12):
        for j in range(9):
            b, g, r = map(float, bgr[i, j])
            y[i][j] = 0.299 * r + 0.587 * g + 0.114 * b
            u = -0.14713 * r - 0.28886 * g + 0.436 * b
            v = 0.615 * r - 0.51499 * g - 0.10001 * b
            assert np.allclose(out[i, j, 1:], ((u - 1.5) / 3, (v + 2) / 7), atol=1e-5)
    assert np.allclose(out[..., 0], naive_normalisation(y), atol=1e-5)
    flipped = step.transform({'img': bgr[:, ::-1]})['img']
    assert np.allclose(flipped, out[:, ::-1], atol=1e-5), 'before a flip or after'
    assert repr(step) == 'LocalContrastYUV(mean=(1.5, -2.0), std=(3.0, 7.0))'


def test_mistakes_with_the_step(room: ModuleType) -> None:
    for wrong in ({'mean': (1,)}, {'std': (1, 2, 3)}, {'std': (1, 0)}):
        with pytest.raises(UserError, match='must be two numbers each, of U and of V'):
            room.LocalContrastYUV(**wrong)
    for shape in ((4, 4), (4, 4, 1)):
        with pytest.raises(UserError, match=r'image of shape \(4, 4.*\) is not in colour'):
            room.LocalContrastYUV().transform({'img': np.zeros(shape, np.uint8)})


def test_the_model_takes_it_as_it_is(zoo: object, room: ModuleType, tmp_path: Path) -> None:
    root = image_folder(tmp_path, {'train': 1}, side=12)
    pipeline = [*STEPS, dict(type='LocalContrastYUV'), PACK]
    dataset = room.FineGrainedImages(str(root), 'train', pipeline=pipeline)
    sample = dataset[0]
    assert sample['inputs'].dtype == torch.float32 and sample['inputs'].shape == (3, 12, 12)
    preprocessor = zoo.MODELS.build(
        dict(type='ClsDataPreprocessor', mean=None, std=None, to_rgb=False)
    )
    batch = {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}
    given = preprocessor(batch, training=True)['inputs']
    assert torch.equal(given[0], sample['inputs'])


class TestPictures:
    """They show the image, not these colours."""

    @pytest.mark.parametrize('wrapped', [False, True])
    @pytest.mark.parametrize('arrays', [False, True])
    def test_after_training(
        self, zoo: object, room: ModuleType, tmp_path: Path, arrays: bool, wrapped: bool
    ) -> None:
        from mmengine.dataset import ConcatDataset

        from fgplugins.zoo_mmpretrain.pictures import images_of

        Image.new('RGB', (12, 12), (200, 30, 90)).save(_folder(tmp_path) / 'x.png')
        pipeline = [*STEPS, dict(type='LocalContrastYUV'), PACK]
        dataset = room.FineGrainedImages(str(tmp_path), 'train', pipeline=pipeline)
        if arrays:
            record = {'img': np.full((12, 12, 3), (90, 30, 200), np.uint8), 'gt_label': 0}
            dataset.load_data_list = lambda: [record]
            dataset._fully_initialized = False
            dataset.full_init()
        data = ConcatDataset([dataset]) if wrapped else dataset
        for to_rgb in (True, False):
            image = images_of(data, [0], [data[0]], to_rgb)[0]
            # as_rgb leaves bytes as they are
            assert image.dtype == np.uint8 and tuple(image[5, 5]) == (200, 30, 90)

    def test_of_show_attention(self, zoo: object, tmp_path: Path) -> None:
        from mmengine.config import Config

        from fgplugins.analysis.loading import load_model
        from fgplugins.zoo_mmpretrain.running.configs import find_config

        cfg = Config.fromfile(find_config('gap_mobilenetv2_cub'))
        steps = [dict(type='LoadImage'), dict(type='Resize', scale=(64, 64))]
        cfg.test_dataloader.dataset.pipeline = [*steps, dict(type='LocalContrastYUV'), PACK]
        cfg.data_preprocessor = dict(num_classes=200, mean=None, std=None, to_rgb=False)
        cfg.dump(tmp_path / 'c.py')
        Image.new('RGB', (64, 64), (200, 30, 90)).save(tmp_path / 'x.png')
        image, inputs = load_model(str(tmp_path / 'c.py')).read_image(str(tmp_path / 'x.png'))
        assert image.shape == (64, 64, 3) and tuple(image[5, 5]) == (200, 30, 90)
        assert inputs[0, 0].abs().max() < 1e-3, 'the network has what the step gives'

    def test_pipelines_without_such_a_step(self, room: ModuleType) -> None:
        from fgplugins.zoo_mmpretrain.colours import picture_pipeline

        plain = SimpleNamespace(transforms=[room.LoadImage()])
        assert picture_pipeline(plain) is None and picture_pipeline(None) is None


def _folder(root: Path) -> Path:
    folder = root / 'train' / 'crow'
    folder.mkdir(parents=True)
    return folder
