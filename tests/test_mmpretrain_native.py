"""What MMPretrain's users expect: its hub, its inferencers, its ways with configs, the wheel."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mmpretrain
import numpy as np
import torch
from helpers import load_config
from mmpretrain.registry import MODELS

import fgplugins.zoo_mmpretrain
from fgplugins.zoo_mmpretrain import FineGrainedClassifier

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / 'configs'


def test_every_config_is_in_the_hub() -> None:
    listed = set(mmpretrain.list_models())
    assert {path.stem for path in CONFIGS.glob('*.py')} <= listed
    assert 'clan_r50_cub' in mmpretrain.list_models('clan_*')
    assert len(listed) > 500  # MMPretrain's own are there too
    fgplugins.zoo_mmpretrain.register_configs()  # a second time changes nothing
    assert set(mmpretrain.list_models()) == listed


def test_models_by_name() -> None:
    model = mmpretrain.get_model('warn_cnn_digits', head={'num_classes': 3})
    assert isinstance(model, FineGrainedClassifier) and not model.training
    assert model.head.num_classes == 3 and type(model.head).__name__ == 'WARNHead'
    assert model(torch.randn(2, 1, 40, 40)).shape == (2, 3)


@pytest.mark.parametrize('shape', [(50, 60), (50, 60, 3)])
def test_the_zoos_inferencer(shape: tuple[int, ...]) -> None:
    """It reads images itself, in colour."""
    with pytest.warns(UserWarning, match='Unable to find pre-defined checkpoint'):
        inferencer = mmpretrain.ImageClassificationInferencer('warn_cnn_digits')
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    (result,) = inferencer(image)
    assert result['pred_class'] == str(result['pred_label'])
    assert result['pred_scores'].shape == (10,)


def test_a_schedule_for_other_epochs_is_told(capsys: pytest.CaptureFixture) -> None:
    load_config('warn_mobilenetv2_cub', **{'train_cfg.max_epochs': 9})
    assert 'falls over 6 epochs: add param_scheduler.T_max=9' in capsys.readouterr().out
    load_config('warn_mobilenetv2_cub', **{'train_cfg.max_epochs': 6})
    load_config('warn_mobilenetv2_cub', **{'train_cfg.max_epochs': 9, 'param_scheduler.T_max': 9})
    assert not capsys.readouterr().out


def test_configs_inherit_from_both_trees(tmp_path: Path) -> None:
    """A user's config over one of MMPretrain's bases, and over one of ours by a relative path."""
    theirs = tmp_path / 'theirs.py'
    theirs.write_text(
        "_base_ = ['mmpretrain::_base_/models/resnet18.py',\n"
        "          'mmpretrain::_base_/default_runtime.py']\n"
        "custom_imports = dict(imports=['fgplugins.zoo_mmpretrain'])\n"
        "model = dict(type='FineGrainedClassifier', neck=None,\n"
        '             backbone=dict(out_indices=(2, 3)),\n'
        "             head=dict(_delete_=True, type='Att2Head', num_classes=7))\n"
    )
    model = MODELS.build(load_config(theirs).model)
    assert model.head.method.in_channels == (256, 512)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 7)

    ours = tmp_path / 'ours.py'
    relative = os.path.relpath(CONFIGS / 'warn_cnn_digits.py', tmp_path)
    ours.write_text(f'_base_ = {relative!r}\nmodel = dict(head=dict(heads=2))\n')
    cfg = load_config(ours, **{'model.head.mask': 'sigmoid'})
    assert cfg.model.head == {
        'type': 'WARNHead', 'num_classes': 10, 'taps': 4, 'heads': 2, 'mask': 'sigmoid',
    }  # fmt: skip
    assert MODELS.build(cfg.model).head.method.attention_modules[0].heads == 2


@pytest.mark.slow
def test_a_config_runs_from_the_wheel_outside_the_repository(tmp_path: Path) -> None:
    """Built, installed, trained, counted, listed; with the index that mim reads."""
    source, site = tmp_path / 'source', tmp_path / 'site'
    skipped = shutil.ignore_patterns('.git', 'build', '*.egg-info', 'work_dirs', '.venv', 'data')
    shutil.copytree(ROOT, source, ignore=skipped)

    def python(*arguments: str, cwd: Path = tmp_path) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd, capture_output=True, text=True, check=False,
            env={**os.environ, 'PYTHONPATH': str(site)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    quiet = ('--quiet', '--no-deps', '--no-build-isolation', '--no-index')
    python('-m', 'pip', 'wheel', *quiet, '-w', str(tmp_path), str(source))
    (wheel,) = tmp_path.glob('fgplugins-*.whl')
    python('-m', 'pip', 'install', *quiet, '--target', str(site), str(wheel))
    shutil.rmtree(source)

    assert str(site) in python('-c', 'import fgplugins; print(fgplugins.__file__)')
    index = (site / 'fgplugins' / '.mim' / 'model-index.yml').read_text()
    assert 'Config: configs/clan_r50_cub.py' in index
    listed = python(
        '-c',
        'import mmpretrain, fgplugins.zoo_mmpretrain as zoo\n'
        "print(mmpretrain.list_models('warn_*'), mmpretrain.get_model('warn_cnn_digits')._config)",
    )
    assert 'warn_r50_cub' in listed
    out = python(
        '-m', 'fgplugins', 'train', 'warn_cnn_digits', '--cfg-options',
        'train_dataloader.dataset.num_images=256', 'val_dataloader.dataset.num_images=100',
        'train_cfg.max_epochs=1', 'model.head.heads=2',
    )  # fmt: skip
    assert 'top-1 on the test data' in out
    checkpoint = tmp_path / 'work_dirs' / 'warn_cnn_digits' / 'epoch_1.pth'
    assert checkpoint.is_file()
    assert 'parameters' in python('-m', 'fgplugins', 'get_flops', 'warn_cnn_digits')
