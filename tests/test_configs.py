"""Every config in the tree can be read; one a method and kind of data is built and stepped once.

With ``-m slow`` all of them are, at the size of image that they train on.
"""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

from pathlib import Path

import torch
from helpers import load_config
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from torch import nn

from fgplugins.zoo_mmpretrain.running.settings import pipeline_size

CONFIGS = sorted((Path(__file__).parent.parent / 'configs').glob('*.py'))
KINDS = {
    'cifar': ('cifar10', 'cifar100'),
    'svhn': ('svhn',),
    'digits': ('digits',),
    'fine-grained': ('cub', 'cars', 'aircraft', 'dogs', 'food', 'gender', 'age'),
    'objects': ('caltech256', 'imagenet', 'voc2012'),
}
# which of several is taken: the first of these that there is, else the first by its name
SMALL = ('mobilenetv2', 'r18', 'r110', 'vgg', 'cnn')
IN_FOLDERS = {'gender': 'adience', 'age': 'adience', 'food': 'food100', 'digits': 'Digits'}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def method_and_kind(path: Path) -> tuple[str, str]:
    method, *_, data = path.stem.split('_')
    return method, next(kind for kind, names in KINDS.items() if data in names)


def small_ones() -> list[Path]:
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in CONFIGS:
        groups.setdefault(method_and_kind(path), []).append(path)
    return [
        next((p for net in SMALL for p in group if f'_{net}_' in p.stem), group[0])
        for group in groups.values()
    ]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_what_a_config_says(path: Path) -> None:
    cfg = load_config(path)
    method, *_, data = path.stem.split('_')
    assert cfg.model.head.type.removesuffix('Head').lower() == method, 'named {method}_{net}_{data}'
    assert IN_FOLDERS.get(data, data).lower() in str(cfg._cfg_dict.train_dataloader).lower()
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes
    for loader in LOADERS:
        pipeline = cfg[loader].dataset.pipeline
        for step in pipeline:
            TRANSFORMS.build(step)
        assert pipeline_size(pipeline) == pipeline_size(cfg.test_dataloader.dataset.pipeline)

    # whoever looks at the test images while training says so
    val, test = cfg.val_dataloader.dataset, cfg.test_dataloader.dataset
    looks = val.split == test.split
    assert ('tests every epoch' in path.read_text().split('\n')[0]) == looks
    if not looks and val.type == 'FineGrainedImages':
        assert val.split == 'val' and test.split == 'test'
        assert val.val_share == cfg.train_dataloader.dataset.val_share > 0


def step_and_test(cfg: Config, size: tuple[int, int]) -> nn.Module:
    """Train a step and test one on noise of this size, as the runner does."""
    init_default_scope('mmpretrain')
    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model).train()
    channels, Y = cfg.model.backbone.get('in_channels', 3), cfg.model.head.num_classes
    raw = torch.randint(0, 256, (2, channels, *size), dtype=torch.uint8)
    if cfg.data_preprocessor.get('mean', ()) is None:
        raw = raw / 64 - 2  # as `LocalContrastYUV` gives it
    several = cfg.model.head.get('multi_label')
    labels = ([0, 1], [Y - 1]) if several else (0, Y - 1)
    samples = [DataSample().set_gt_label(label) for label in labels]
    data = {'inputs': list(raw), 'data_samples': samples}
    batch = model.data_preprocessor(data, training=True)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    log = model.train_step(data, wrapper)
    assert log['loss'].isfinite()
    assert all(not torch.equal(p, before[k]) for k, p in model.named_parameters() if p.ndim > 1)
    with torch.no_grad():
        assert model.eval()(**batch, mode='predict')[0].pred_score.shape == (Y,)

    schedulers = cfg.param_scheduler
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if scheduler.get('convert_to_iter_based'):
            scheduler = {**scheduler, 'epoch_length': 10}  # as the runner does
        PARAM_SCHEDULERS.build({**scheduler, 'optimizer': wrapper})
    return model


@pytest.mark.parametrize('path', small_ones(), ids=lambda p: p.stem)
def test_a_step_of_small_ones(path: Path) -> None:
    cfg = load_config(path)
    size = pipeline_size(cfg.test_dataloader.dataset.pipeline)
    fixed = cfg.model.backbone.get('model_name', '').startswith('clutter_cnn')
    step_and_test(cfg, size if fixed else tuple(min(64, side) for side in size))


@pytest.mark.slow
@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_a_step_at_full_size(path: Path) -> None:
    cfg = load_config(path)
    step_and_test(cfg, pipeline_size(cfg.test_dataloader.dataset.pipeline))


def test_new_layers_learn_ten_times_faster_in_fine_tuning() -> None:
    cfg = load_config('warn_r50_cub')
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(g['params'][0]): g['lr'] for g in wrapper.optimizer.param_groups}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.01 if name.startswith('head.') else 0.001)
