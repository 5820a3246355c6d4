"""Every config in the tree is built and stepped once."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample

CONFIGS = sorted((Path(__file__).parent.parent / 'configs').glob('*.py'))


def test_there_are_configs() -> None:
    assert {'warn_cnn_digits', 'gap_cnn_digits', 'warn_r50_cub', 'gap_r50_cub'} <= {
        c.stem for c in CONFIGS
    }


def _image_size(cfg: Config) -> int:
    from fgplugins.zoo_mmpretrain.running.settings import pipeline_size

    return pipeline_size(cfg.test_dataloader.dataset.pipeline)[0]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_config(path: Path) -> None:
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(path)
    method, *_, dataset = path.stem.split('_')
    assert cfg.model.head.type.removesuffix('Head').lower() == method, 'named {method}_{net}_{data}'
    assert dataset in str(cfg._cfg_dict.train_dataloader).lower()

    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model).train()
    channels = cfg.model.backbone.get('in_channels', 3)
    size = min(64, {1: 40}.get(channels) or _image_size(cfg))
    raw = torch.randint(0, 256, (2, channels, size, size), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (0, cfg.model.head.num_classes - 1)]
    batch = model.data_preprocessor({'inputs': list(raw), 'data_samples': samples}, training=True)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    log = model.train_step({'inputs': list(raw), 'data_samples': samples}, wrapper)
    assert log['loss'].isfinite()
    assert all(not torch.equal(p, before[k]) for k, p in model.named_parameters() if p.ndim > 1)
    assert model.eval()(**batch, mode='predict')[0].pred_score.shape == (
        cfg.model.head.num_classes,
    )

    schedulers = (
        cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    )
    for scheduler in schedulers:
        if scheduler.get('convert_to_iter_based'):
            scheduler = {**scheduler, 'epoch_length': 10}  # as the runner does
        PARAM_SCHEDULERS.build({**scheduler, 'optimizer': wrapper})
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        for step in loader.dataset.pipeline:
            TRANSFORMS.build(step)


def test_new_layers_learn_ten_times_faster_in_fine_tuning() -> None:
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(next(c for c in CONFIGS if c.stem == 'warn_r50_cub'))
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(g['params'][0]): g['lr'] for g in wrapper.optimizer.param_groups}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.01 if name.startswith('head.') else 0.001)
