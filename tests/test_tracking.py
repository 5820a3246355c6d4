"""Following a training: what is sent where, and whose weights and images it is of."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain import pictures
from fgplugins.zoo_mmpretrain.classifier import FineGrainedClassifier
from fgplugins.zoo_mmpretrain.running import options, resuming, tracking
from fgplugins.zoo_mmpretrain.running.settings import short_type

Run = Callable[..., subprocess.CompletedProcess]
SMALL = [
    '--workers', '0', '--cfg-options',
    'train_dataloader.dataset.num_images=96', 'val_dataloader.dataset.num_images=40',
    'test_dataloader.dataset.num_images=40', 'train_dataloader.batch_size=32',
    'train_cfg.max_epochs=2', 'custom_hooks.1.num_images=3',
]  # fmt: skip


def small_config(**more: object) -> Config:
    hooks = [dict(type='EpochSeedHook'), dict(type='AttentionMapHook', num_images=8)]
    local = [dict(type='LocalVisBackend')]
    return Config(
        dict(
            work_dir='work_dirs/warn_birds',
            visualizer=dict(type='UniversalVisualizer', vis_backends=local),
            custom_hooks=hooks,
            **more,
        )
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """All packages are there, and no login."""
    monkeypatch.setattr(tracking.importlib.util, 'find_spec', lambda name: name)
    for name in ('WANDB_API_KEY', 'WANDB_MODE', 'WANDB_BASE_URL', 'MLFLOW_TRACKING_URI', 'NETRC'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures('here')
def test_back_ends_are_added() -> None:
    cfg = small_config()
    notes = tracking.set_tracking(cfg, ['tensorboard', 'mlflow', 'tensorboard'])
    local, tensorboard, mlflow = cfg.visualizer.vis_backends
    assert (local.type, tensorboard.type) == ('LocalVisBackend', 'TensorboardVisBackend')
    assert mlflow == dict(type='fgplugins.MLflowBackend', exp_name='fgplugins',
                          run_name='warn_birds')  # fmt: skip
    assert cfg.custom_hooks[1] == dict(type='AttentionMapHook', num_images=8, interval=1)
    assert notes == [] and 'interval' not in cfg.custom_hooks[0]

    tracking.set_tracking(cfg, ['tensorboard'])
    assert len(cfg.visualizer.vis_backends) == 3
    tracking.drop_tracking(cfg)
    assert cfg.visualizer.vis_backends == [local]

    plain = Config(dict(work_dir='a'))
    tracking.drop_tracking(plain)
    tracking.set_tracking(plain, [])
    assert 'visualizer' not in plain
    tracking.set_tracking(plain, ['tensorboard'])
    assert [short_type(b) for b in plain.visualizer.vis_backends] == [
        'LocalVisBackend', 'TensorboardVisBackend',
    ]  # fmt: skip
    other = small_config()
    other.custom_hooks[1].interval = 5
    tracking.set_tracking(other, ['tensorboard'])
    assert other.custom_hooks[1].interval == 5, "the config's own"


def test_without_a_login_nothing_is_sent(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings() -> tuple[dict, list[str]]:
        cfg = small_config()
        notes = tracking.set_tracking(cfg, ['wandb'])
        return cfg.visualizer.vis_backends[1].init_kwargs, notes

    run = dict(project='fgplugins', name='warn_birds')
    found, (note,) = settings()
    assert found == dict(run, mode='offline')
    assert 'stays in work_dirs/warn_birds: wandb sync sends it' in note
    (here / '.netrc').write_text('machine example.org login user password x\n')
    assert settings()[0] == dict(run, mode='offline')
    (here / '.netrc').write_text('machine api.wandb.ai login user password x\n')
    assert settings() == (run, [])
    (here / '.netrc').write_text('no such thing\n')
    assert settings()[0] == dict(run, mode='offline')
    for name in ('WANDB_API_KEY', 'WANDB_MODE'):
        with monkeypatch.context() as one:
            one.setenv(name, 'x')
            assert settings() == (run, [])


@pytest.mark.usefixtures('here')
def test_a_server_of_mlflow_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:5000')
    cfg = small_config()
    tracking.set_tracking(cfg, ['mlflow'])
    assert cfg.visualizer.vis_backends[1].tracking_uri == 'http://127.0.0.1:5000'


@pytest.mark.usefixtures('here')
def test_maps_of_test_images_are_said_to_be() -> None:
    loaders = {
        f'{split}_dataloader': dict(dataset=dict(type='FineGrainedImages', split='test'))
        for split in ('val', 'test')
    }
    (note,) = tracking.set_tracking(small_config(**loaders), ['tensorboard'])
    assert 'looks at the test images after every epoch, and so the attention maps' in note
    loaders['val_dataloader']['dataset']['split'] = 'val'
    assert tracking.set_tracking(small_config(**loaders), ['tensorboard']) == []


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, run_tool: Run) -> None:
    found = {'wandb': None, 'mlflow': None}
    real = tracking.importlib.util.find_spec
    monkeypatch.setattr(
        tracking.importlib.util, 'find_spec', lambda *name: found.get(name[0], real(*name))
    )
    with pytest.raises(UserError, match=r'^--track wandb mlflow: not installed: pip install wandb'):
        tracking.set_tracking(small_config(), ['wandb', 'mlflow'])
    done = run_tool('train', 'warn_cnn_digits', '--track', 'wandb', *SMALL)
    assert done.returncode == 2
    assert done.stderr == 'error: --track wandb: not installed: pip install wandb\n'
    assert run_tool('train', 'warn_cnn_digits', '--track', 'paper').returncode == 2


# ------------------------------------------------------------------------------------ the back ends


def built(kind: str, folder: Path, **more: object) -> object:
    from mmpretrain.registry import VISBACKENDS

    return VISBACKENDS.build(dict(type=f'fgplugins.{kind}', save_dir=str(folder), **more))


def test_wandb_gets_pictures_with_their_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list = []
    wandb = ModuleType('wandb')
    wandb.init = lambda **given: calls.append(('init', given))
    wandb.log = lambda content, **given: calls.append(('log', content))
    wandb.Image = lambda image: ('image', image.shape)
    wandb.join = lambda: calls.append(('join',))
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    backend = built('WandbBackend', tmp_path, init_kwargs=dict(mode='offline'))
    backend.add_image('attention_maps', np.zeros((4, 5, 3), np.uint8), step=7)
    backend.add_scalars({'loss': 0.5}, step=3)
    backend.close()
    assert calls == [
        ('init', {'mode': 'offline', 'dir': str(tmp_path)}),
        ('log', {'attention_maps': ('image', (4, 5, 3)), 'attention_maps/step': 7}),
        ('log', {'loss': 0.5}),
        ('join',),
    ]


@pytest.mark.parametrize('uri', [None, 'http://127.0.0.1:5000'])
def test_mlflow_gets_a_series_of_pictures(
    uri: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list = []
    mlflow = ModuleType('mlflow')
    for name in ('set_tracking_uri', 'get_experiment_by_name', 'create_experiment',
                 'set_experiment', 'set_tag', 'log_image', 'log_metrics'):  # fmt: skip
        setattr(mlflow, name, lambda *a, _name=name, **k: calls.append((_name, a, k)))
    monkeypatch.setitem(sys.modules, 'mlflow', mlflow)
    # mmengine opens those whose stream is closed, as pytest closes its own
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handlers', [])
    backend = built('MLflowBackend', tmp_path, exp_name='fgplugins', tracking_uri=uri)
    backend.add_image('attention_maps', np.zeros((4, 5, 3), np.uint8), step=7)
    backend.add_scalars({'loss': 0.5}, step=3)
    found = {name: (given, more) for name, given, more in calls}
    database = f'sqlite:///{tmp_path.as_posix()}/mlflow.db'
    assert found['set_tracking_uri'] == ((uri or database,), {})
    place = found['create_experiment'][1]['artifact_location']
    assert place == (None if uri else (tmp_path / 'mlartifacts').as_uri())
    assert found['log_image'][1] == {'key': 'attention_maps', 'step': 7}
    assert found['log_image'][0][0].shape == (4, 5, 3)
    assert found['log_metrics'] == (({'loss': 0.5}, 3), {})


# ---------------------------------------------------------------------------------------- trainings


@pytest.mark.slow
def test_tensorboard_holds_scalars_and_maps(tmp_path: Path, run_tool: Run) -> None:
    """Read back from the file: two epochs, a picture each; and the training is the same."""
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = run_tool('train', 'warn_cnn_digits', '--track', 'tensorboard', *SMALL)
    assert done.returncode == 0, done.stderr
    work = tmp_path / 'work_dirs/warn_cnn_digits'
    (file,) = work.glob('*/vis_data/events.out.tfevents.*')
    events = EventAccumulator(str(file), size_guidance={'images': 0, 'scalars': 0}).Reload()
    scores = events.Scalars('accuracy/top1')
    printed = re.findall(r'val top-1 ([\d.]+) %', done.stdout)
    assert [event.step for event in scores] == [1, 2]
    assert [event.value for event in scores] == pytest.approx(list(map(float, printed)), abs=0.01)
    assert events.Scalars('loss') and events.Scalars('lr')
    maps = events.Images('attention_maps')
    assert [event.step for event in maps] == [1, 2] and events.Tags()['images'] == [
        'attention_maps'
    ]
    first, last = (np.asarray(Image.open(io.BytesIO(m.encoded_image_string))) for m in maps)
    drawn = np.asarray(Image.open(work / 'attention_maps.png').convert('RGB'))
    assert np.array_equal(last, drawn) and first.shape == last.shape
    assert not np.array_equal(first, last)
    (local,) = work.glob('*/vis_data/scalars.json')
    assert 'accuracy/top1' in local.read_text()
    (log,) = work.glob('*/*.log')
    assert log.read_text().count('attention maps of 3 validation images') == 3

    saved = str(work / 'warn_cnn_digits.py'), str(work / 'epoch_2.pth')
    tested = run_tool('test', *saved, *SMALL[2:])
    assert tested.returncode == 0, tested.stderr
    assert not list(work.glob('test/**/events.out.tfevents.*'))

    plain = run_tool('train', 'warn_cnn_digits', '--work-dir', 'plain', *SMALL)
    assert plain.returncode == 0, plain.stderr
    a, b = (torch.load(folder / 'epoch_2.pth', weights_only=False)['state_dict']
            for folder in (work, tmp_path / 'plain'))  # fmt: skip
    assert all(torch.equal(a[key], b[key]) for key in a)


def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict]]:
    """The weights that validations, pictures and tests are of, in order."""
    found: dict[str, list[dict]] = {'val_step': [], 'test_step': [], 'draw_samples': []}

    def weights(model: torch.nn.Module) -> dict:
        return {key: value.clone() for key, value in model.state_dict().items()}

    for name in ('val_step', 'test_step'):
        real = getattr(FineGrainedClassifier, name)

        def step(model: object, data: object, _name: str = name, _real: object = real) -> object:
            found[_name].append(weights(model))
            return _real(model, data)

        monkeypatch.setattr(FineGrainedClassifier, name, step)
    draw = pictures.draw_samples

    def drawn(model: object, *given: object) -> list[Path]:
        found['draw_samples'].append(weights(model))
        return draw(model, *given)

    monkeypatch.setattr(pictures, 'draw_samples', drawn)
    return found


def assert_same(a: dict, b: dict) -> None:
    assert all(torch.equal(a[key], b[key]) for key in {**a, **b})


@pytest.mark.slow
def test_averages_are_validated_drawn_saved_and_tested(
    tmp_path: Path, run_tool: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = recorded(monkeypatch)
    averaged = ['warn_cnn_digits', '--ema', '0.3']
    validations = ['custom_hooks.1.interval=1']
    done = run_tool('train', *averaged, *SMALL, *validations)
    assert done.returncode == 0, done.stderr
    work = tmp_path / 'work_dirs/warn_cnn_digits'
    saved = [torch.load(work / f'epoch_{i}.pth', weights_only=False) for i in (1, 2)]
    steps = len(seen['val_step']) // 2
    for epoch, content in enumerate(saved):
        average = content['state_dict']
        for validated in seen['val_step'][epoch * steps : (epoch + 1) * steps]:
            assert_same(validated, average)
        assert_same(seen['draw_samples'][epoch], average)
        raw = content['ema_state_dict']
        key = 'head.method.classifier.weight'
        assert not torch.equal(raw[f'module.{key}'], average[key])
        assert any('running' in k and not torch.equal(raw[f'module.{k}'], average[k])
                   for k in average), 'statistics are averaged, too'  # fmt: skip
    assert_same(seen['draw_samples'][2], saved[1]['state_dict'])

    small = [*SMALL, 'test_dataloader.dataset.split=val']
    for config in ('warn_cnn_digits', str(work / 'warn_cnn_digits.py')):
        seen['test_step'].clear()
        tested = run_tool('test', config, str(work / 'epoch_2.pth'), *small[2:])
        assert tested.returncode == 0, tested.stderr
        for weights in seen['test_step']:
            assert_same(weights, saved[1]['state_dict'])
        top1 = re.findall(r'val top-1 ([\d.]+) %', done.stdout)[-1]
        assert f'\ntop-1: {top1} %\n' in tested.stdout

    # half of it, and on from there, is the same; the averages are no weights to go on from
    half = run_tool('train', *averaged, '--work-dir', 'half', *SMALL, 'train_cfg.max_epochs=1')
    assert half.returncode == 0, half.stderr
    given = ['--work-dir', 'half', '--resume']
    without = run_tool('train', 'warn_cnn_digits', *given, *SMALL)
    assert without.returncode == 2
    assert without.stderr.endswith('its training averaged the weights: add --ema\n')
    resumed = run_tool('train', *averaged, *given, *SMALL)
    assert resumed.returncode == 0, resumed.stderr
    again = torch.load(tmp_path / 'half/epoch_2.pth', weights_only=False)
    assert_same(again['state_dict'], saved[1]['state_dict'])


def test_the_share_of_averages() -> None:
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(UserError, match=rf'^--ema {share:g}: must be between 0 and 1'):
            options.set_options(small_config(), SimpleNamespace(ema=share), {})
    cfg = small_config()
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.1))
    options.set_options(cfg, SimpleNamespace(ema=0.0002), {})
    *_, hook = cfg.custom_hooks
    assert [h.type for h in cfg.custom_hooks] == ['EpochSeedHook', 'AttentionMapHook', 'EMAHook']
    assert hook.ema_type == 'MomentumAnnealingEMA' and hook.momentum == 0.0002
    training = dict(optimizer={}, message_hub={}, meta=dict(epoch=1, iter=2), ema_state_dict={})
    cfg.train_cfg = dict(by_epoch=True, max_epochs=2)
    resuming.check_resume(training, 'a.pth', cfg)


@pytest.mark.parametrize(('interval', 'by_iterations', 'steps'), [
    (None, False, []), (1, False, [1, 2, 3, 4]), (2, False, [2, 4]), (20, True, [20, 40]),
])  # fmt: skip
def test_when_maps_are_drawn(
    interval: int | None, by_iterations: bool, steps: list[int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from mmengine.runner import IterBasedTrainLoop

    shown: list = []
    visualizer = SimpleNamespace(
        add_image=lambda name, image, step: shown.append((name, image.shape, step))
    )
    hook = pictures.AttentionMapHook(interval=interval)
    page = tmp_path / 'attention_maps.png'
    Image.new('RGBA', (5, 4)).save(page)
    monkeypatch.setattr(hook, 'draw', lambda runner: [page])
    loop = object.__new__(IterBasedTrainLoop) if by_iterations else None
    for started in (False, True):
        if started:
            hook.before_train(SimpleNamespace())
        for epoch in (1, 2, 3, 4):
            hook.after_val_epoch(
                SimpleNamespace(
                    train_loop=loop, epoch=epoch, iter=10 * epoch, visualizer=visualizer
                )
            )
    assert shown == [('attention_maps', (4, 5, 3), step) for step in steps]
