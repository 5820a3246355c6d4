"""The options of training: its length with the schedule, its rate, what it shows, what it keeps."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from helpers import image_folder
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.running import choosing, configs, options
from fgplugins.zoo_mmpretrain.running.schedule import stretch

ROOT = Path(__file__).parent.parent


def stretched(epochs: int, before: int, *schedulers: dict, **more: object) -> tuple[list, str]:
    """Schedulers after ``--epochs``, and what is said of it."""
    cfg = Config(dict(train_cfg=dict(max_epochs=before), param_scheduler=list(schedulers), **more))
    note = stretch(cfg, epochs)
    assert cfg.train_cfg.max_epochs == epochs
    return [scheduler.to_dict() for scheduler in cfg.param_scheduler], note


def rates(epochs: int, *schedulers: dict) -> list[float]:
    """The rate of every epoch, by mmengine's own schedulers, from 1."""
    init_default_scope('mmpretrain')
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    built = [PARAM_SCHEDULERS.build({**s, 'optimizer': optimizer}) for s in schedulers]
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return found


STEP, MULTI, COSINE = (dict(type=f'{name}LR') for name in ('Step', 'MultiStep', 'CosineAnnealing'))


@pytest.mark.parametrize(
    ('before', 'epochs', 'old', 'new', 'said'),
    [
        # configs/_base_/schedules: art, cifar_resnet, cifar_wrn, digits, att2_cub's two
        (140, 14, MULTI | dict(milestones=[50, 95]), dict(milestones=[5, 10]), '[50, 95] -> [5, 1'),
        (160, 40, MULTI | dict(milestones=[81, 122]), dict(milestones=[20, 31]), ''),
        (200, 300, MULTI | dict(milestones=[60, 120, 160]), dict(milestones=[90, 180, 240]), ''),
        (7, 1, MULTI | dict(milestones=[5]), dict(milestones=[]), 'the step at 5 falls out'),
        (90, 2, MULTI | dict(milestones=[30, 60]), dict(milestones=[1]), 'step at 60 falls out'),
        (
            290, 5, MULTI | dict(milestones=[90, 120, 150, 180, 210, 240, 270]),
            dict(milestones=[2, 3, 4]), 'the steps at 120, 180, 240, 270 fall out',
        ),
        # clan, att2_vgg, finetune_warn
        (100, 50, STEP | dict(step_size=30, gamma=0.1), dict(step_size=15, gamma=0.1), '30 -> 15'),
        (300, 30, STEP | dict(step_size=25, gamma=0.5), dict(step_size=3, gamma=0.4353), '25 -> 3'),
        (300, 60, STEP | dict(step_size=25, gamma=0.5), dict(step_size=5, gamma=0.5), '25 -> 5'),
        (120, 10, STEP | dict(step_size=2, gamma=0.9), dict(step_size=1, gamma=0.5314), 'gamma'),
        # finetune_small, siou_cosine
        (6, 9, COSINE | dict(T_max=6, convert_to_iter_based=True), dict(T_max=9), 'T_max 6 -> 9'),
        (20, 3, COSINE | dict(T_max=20), dict(T_max=3), ''),
        # others
        (10, 20, dict(type='ExponentialLR', gamma=0.81), dict(gamma=0.9), 'gamma 0.81 -> 0.9'),
        (90, 30, dict(type='PolyLR', begin=15, end=90), dict(begin=5, end=30), ''),
        (
            60, 20, dict(type='CosineRestartLR', periods=[10, 20, 30], eta_min=0),
            dict(periods=[3, 7, 10]), '',
        ),
        (50, 10, dict(type='OneCycleLR', eta_max=1, total_steps=50), dict(total_steps=10), ''),
        (100, 20, dict(type='ReduceOnPlateauLR', patience=10), dict(patience=2), ''),
        (100, 50, dict(type='LinearLR', by_epoch=False, end=501), dict(end=251), ''),
        (200, 10, dict(type='LinearLR', end=5, start_factor=0.1), dict(start_factor=1), 'it falls'),
        (200, 10, dict(type='ConstantLR', end=5, factor=0.1), dict(factor=1), 'it falls out'),
    ],
)  # fmt: skip
def test_a_schedule_is_stretched(before: int, epochs: int, old: dict, new: dict, said: str) -> None:
    (found,), note = stretched(epochs, before, old)
    assert found | new == found
    assert found.keys() <= old.keys() | new.keys() | {'end'}
    length = '1 epoch' if epochs == 1 else f'{epochs} epochs'
    assert note.startswith(f'{length} in place of {before}, the schedule with them: ')
    assert said in note
    assert len(note.splitlines()) == 1


def test_schedulers_that_follow_each_other_still_do() -> None:
    warm = dict(type='LinearLR', start_factor=0.2, begin=0, end=5)
    cosine = dict(type='CosineAnnealingLR', T_max=195, begin=5, end=200)
    for epochs in (7, 30, 100, 333):
        (first, second), _ = stretched(epochs, 200, warm, cosine)
        assert second['begin'] + second['T_max'] == second['end'] == epochs
        assert first['end'] in (second['begin'], 2)  # a warm-up has two steps at least
    # the shape stays: twice as long, each second epoch has the old rate
    (first, second), _ = stretched(400, 200, warm, cosine)
    old, new = rates(200, warm, cosine), rates(400, first, second)
    assert new[10::2] == pytest.approx(old[5:], rel=1e-6)


@pytest.mark.parametrize('epochs', range(1, 40))
def test_the_rate_falls_as_far_as_before(epochs: int) -> None:
    for before, scheduler in (
        (120, dict(type='StepLR', step_size=2, gamma=0.9)),
        (100, dict(type='ExponentialLR', gamma=0.97)),
    ):
        (new,), _ = stretched(epochs, before, scheduler)
        step = new.get('step_size', 1)
        fallen = new['gamma'] ** (epochs / step)
        wanted = scheduler['gamma'] ** (before / scheduler.get('step_size', 1))
        assert fallen == pytest.approx(wanted, rel=0.05)


def test_hooks_with_a_schedule_follow() -> None:
    hooks = [dict(type='EpochSeedHook'), dict(type='fgplugins.RestrictionScheduleHook', begin=50)]
    cfg = Config(dict(train_cfg=dict(max_epochs=140, val_begin=70), custom_hooks=hooks))
    note = stretch(cfg, 14)
    assert 'RestrictionScheduleHook begin 50 -> 5, period 45 -> 5' in note
    assert (cfg.custom_hooks[1].begin, cfg.custom_hooks[1].period) == (5, 5)
    assert cfg.train_cfg.val_begin == 7
    assert stretch(cfg, 14) is None
    cfg = Config(dict(train_cfg=dict(max_iters=100)))
    with pytest.raises(UserError, match=r'--epochs 3: the config counts no epochs.*max_iters=100'):
        stretch(cfg, 3)


def load(name: str, **arguments: object) -> Config:
    import argparse

    given = dict(config=name, cfg_options={}, work_dir=None, data_root=None) | arguments
    return configs.load_config(argparse.Namespace(**given))


def test_options_change_the_config(capsys: pytest.CaptureFixture) -> None:
    cfg = load('warn_mobilenetv2_cub', epochs=9, lr=0.5, batch_size=3, workers=0)
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.T_max) == (9, 9)
    assert cfg.optim_wrapper.optimizer.lr == 0.5
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys['head.'].lr_mult == 10
    assert cfg.train_dataloader.batch_size == 3
    assert {cfg[f'{split}_dataloader'].num_workers for split in ('train', 'val', 'test')} == {0}
    out = capsys.readouterr().out
    assert (
        out
        == 'note: 9 epochs in place of 6, the schedule with them: CosineAnnealingLR T_max 6 -> 9\n'
    )


def test_settings_win_over_options(capsys: pytest.CaptureFixture) -> None:
    wins = {
        'param_scheduler.T_max': 4,
        'optim_wrapper.optimizer.lr': 0.25,
        'train_dataloader.batch_size': 7,
    }
    cfg = load('warn_mobilenetv2_cub', epochs=9, lr=0.5, batch_size=3, cfg_options=wins)
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.T_max) == (9, 4)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.train_dataloader.batch_size) == (0.25, 7)
    capsys.readouterr()
    # the number of epochs too, and the schedule follows that one
    cfg = load('warn_mobilenetv2_cub', epochs=9, cfg_options={'train_cfg.max_epochs': 12})
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.T_max) == (12, 12)
    assert 'the rate falls over' not in capsys.readouterr().out
    load('warn_mobilenetv2_cub', cfg_options={'train_cfg.max_epochs': 12})
    assert 'add param_scheduler.T_max=12' in capsys.readouterr().out


def test_the_device_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import mmengine.device

    monkeypatch.setattr(mmengine.device.utils, 'DEVICE', 'mine')
    options.set_device('auto')
    assert mmengine.device.get_device() == 'mine'
    options.set_device('cpu')
    assert mmengine.device.get_device() == 'cpu'


def test_which_images_and_which_score_choose(tmp_path: Path) -> None:
    images = image_folder(tmp_path, {'train': 4, 'test': 2})
    given = dict(data_root=str(images))
    cfg = load('gap_r50_cub', **given)
    assert choosing.validates_on_test(cfg) and choosing.main_score(cfg) == 'accuracy/top1'
    with pytest.raises(UserError, match=r'--early-stop 3: this config looks at the test .*0\.1'):
        choosing.set_choices(cfg, False, 3)
    choosing.set_choices(cfg, False, None)  # nothing is asked for
    cfg = load('gap_r50_cub', **given, val_share=0.25)
    assert not choosing.validates_on_test(cfg)
    choosing.set_choices(cfg, True, 3)
    assert cfg.default_hooks.checkpoint.save_best == 'accuracy/top1'
    assert cfg.custom_hooks[-1].patience == 3 and cfg.custom_hooks[-1].monitor == 'accuracy/top1'
    choosing.set_choices(cfg, False, 4)  # of a run's saved config, which has the hook already
    stops = [h for h in cfg.custom_hooks if h.type == 'EarlyStoppingHook']
    assert [h.patience for h in stops] == [4]
    choosing.drop_early_stop(cfg)
    assert [h.type for h in cfg.custom_hooks] == ['EpochSeedHook', 'AttentionMapHook']
    cfg.val_evaluator = dict(type='ConfusionMatrix')
    with pytest.raises(UserError, match=r'--save-best: which score of val_evaluator'):
        choosing.set_choices(cfg, True, None)
    cfg.val_dataloader = None
    with pytest.raises(UserError, match=r'--save-best: nothing is validated'):
        choosing.set_choices(cfg, True, None)
    assert choosing.main_score(load('siou_r18_voc2012')) in ('multi-label/mAP', 'multi-label/AUC')
    assert not choosing.validates_on_test(load('warn_cnn_digits'))
    image_folder(tmp_path, {'val': 2})
    assert not choosing.validates_on_test(load('gap_r50_cub', **given))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--epochs', '0'], '--epochs 0: must be a whole number, 1 or more'),
        (['--batch-size', '0'], '--batch-size 0: must be'),
        (['--workers', '-1'], '--workers -1: must be a whole number, 0 or more'),
        (['--lr', '0'], '--lr 0: must be above 0'),
        (['--lr', 'nan'], '--lr nan: must be above 0'),
        (['--early-stop', '0'], '--early-stop 0: must be'),
        (['--save-best', '--no-validate'], '--save-best: nothing is validated'),
        (
            ['--save-best', '--cfg-options', 'val_dataloader.dataset.split=test'],
            'these must not choose: add --cfg-options val_dataloader.dataset.split=val',
        ),
    ],
)
def test_refused_options(
    run_tool: object, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run_tool('train', 'gap_cnn_digits', *arguments)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_device_that_is_not_there_is_refused(run_tool: object) -> None:
    done = run_tool('train', 'gap_cnn_digits', '--device', 'cuda')
    assert done.returncode == 2 and 'error: --device cuda: torch finds no GPU' in done.stderr


# -------------------------------------------------------------------------- what is shown and kept

FEW = [
    '--workers', '0', '--cfg-options', 'train_dataloader.dataset.num_images=128',
    'val_dataloader.dataset.num_images=40', 'train_dataloader.batch_size=32',
]  # fmt: skip


@pytest.fixture
def train(run_tool: Callable) -> Callable[..., str]:
    """What a training of a small network prints to a pipe."""

    def call(*arguments: str) -> str:
        done = run_tool('train', 'gap_cnn_digits', *arguments, *FEW)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def train_on_terminal(cwd: Path, *arguments: str) -> str:
    """What a training of a small network prints to a terminal."""
    command = [sys.executable, str(ROOT / 'tools/train.py'), 'gap_cnn_digits', *arguments, *FEW]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'COLUMNS': '100', 'TERM': 'xterm'}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    read = []
    try:
        while piece := os.read(ours, 4096):
            read.append(piece)
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0, process.stderr.read()
    process.stderr.close()
    os.close(ours)
    return b''.join(read).decode()


def test_a_line_an_epoch_and_the_best_checkpoint(train: Callable, tmp_path: Path) -> None:
    out = train('--epochs', '2', '--save-best', '--early-stop', '5')
    lines = out[out.index('epoch 1/2') :].splitlines()
    number, time = r'\d+\.\d+', r'\d:\d\d:\d\d'
    assert re.fullmatch(rf'epoch 1/2: loss {number}, val top-1 {number} %, {time} left', lines[0])
    assert re.fullmatch(rf'epoch 2/2: loss {number}, val top-1 {number} %', lines[1])
    assert lines[2] == '' and 'mmengine' not in out
    end = '\n'.join(lines[3:])
    scores = [float(re.search(r'top-1 ([\d.]+) %', line)[1]) for line in lines[:2]]
    best = 1 + scores.index(max(scores))
    last = f'top-1 on the validation data after the last epoch (2): {scores[1]:.2f} %'
    assert end.startswith(last)
    assert f'best epoch: {best}, top-1 {max(scores):.2f} % on the validation data' in end
    assert 'checkpoint of the best epoch: work_dirs/gap_cnn_digits/best_' in end
    assert 'checkpoint of the last epoch: work_dirs/gap_cnn_digits/epoch_2.pth' in end
    for path in re.findall(r': (work_dirs/.+)$', end, re.MULTILINE):
        assert (tmp_path / path).is_file()
    assert re.search(r'\ntest it: fgplugins test \S+/gap_cnn_digits.py \S+/best_\S+.pth$', end)
    log = (tmp_path / re.search(r'^log: (.+)$', end, re.MULTILINE)[1]).read_text()
    for part in ('System environment:', 'Config:', 'Epoch(train) [1][4/4]', 'Epoch(val) [2][1/1]'):
        assert part in log


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    out = train_on_terminal(tmp_path, '--epochs', '2')
    plain = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', out)
    # how often it is drawn depends on the machine, and what fits on the width of the terminal
    bar = r'(epoch 2/2|trained) ━+[╸╺━]*\s+\d/8 loss \d\.\d{4} val top-1 \d'
    assert re.search(bar, plain), plain
    assert 'epoch 1/2: ' not in plain and 'mmengine' not in plain
    # one bar, redrawn: new lines are only before and after it
    drawn = re.findall(r'(?:epoch \d/2|trained) ━', plain)
    lines = [line for line in plain.split('\n') if '━' in line]
    assert drawn and len(lines) == 1
    assert plain.rstrip().split('\n')[-1].startswith('test it: fgplugins test ')


@pytest.mark.slow
def test_quiet_and_verbose(train: Callable, tmp_path: Path) -> None:
    quiet = train('--epochs', '1', '--quiet').strip()
    assert quiet.splitlines()[0].startswith('top-1 on the validation data') and 'note' not in quiet
    assert 'test it' not in quiet
    verbose = train_on_terminal(tmp_path, '--epochs', '1', '--verbose')
    assert 'System environment:' in verbose and re.search(r'Epoch\(train\).*eta.*loss', verbose)


def test_a_plateau_ends_the_training(train: Callable) -> None:
    out = train('--epochs', '6', '--early-stop', '1', '--lr', '1e-12')
    assert 'stopped early, after epoch 2 of 6' in out and 'epoch 3/6' not in out


def test_warnings_of_hooks_reach_the_terminal(capsys: pytest.CaptureFixture) -> None:
    from mmengine.logging import MMLogger

    from fgplugins.zoo_mmpretrain.running.terminal import preparing

    logger = MMLogger('of_this_test')
    MMLogger._instance_dict['of_this_test'] = logger
    try:
        with preparing('quiet'):
            print('note')
            logger.info('a line')
            logger.warning('a warning')
            logger.warning('"FileClient" will be deprecated in future')
    finally:
        del MMLogger._instance_dict['of_this_test']
    out = capsys.readouterr().out
    assert 'a warning' in out and len(out.splitlines()) == 1
