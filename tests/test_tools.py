"""The command lines as a user runs them: training, resuming, testing, and every mistake."""

from __future__ import annotations

import pytest

pytest.importorskip('mmpretrain', reason='of the MMPretrain side')

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

import fgplugins  # noqa: F401  (registers the timm models)

ROOT = Path(__file__).parent.parent
SMALL = [
    'train_dataloader.dataset.num_images=128',
    'val_dataloader.dataset.num_images=100',
    'test_dataloader.dataset.num_images=100',
    'train_dataloader.batch_size=32',
    'train_cfg.max_epochs=2',
]


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """A command in a user's folder; with one thread, as other commands may run beside it."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1', **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def tool(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return run(sys.executable, str(ROOT / 'tools' / f'{name}.py'), *arguments, cwd=cwd)


def config(name: str) -> str:
    return str(ROOT / 'configs' / f'{name}.py')


def weights(path: Path) -> dict[str, torch.Tensor]:
    from fgplugins.zoo_mmpretrain.running.checkpoints import read_checkpoint

    return read_checkpoint(str(path))['state_dict']


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two epochs of WARN on few digits, and what was printed."""
    cwd = tmp_path_factory.mktemp('trained')
    done = tool('train', config('warn_cnn_digits'), '--cfg-options', *SMALL, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd, done.stdout


class TestTraining:
    def test_ends_with_accuracy_and_files(self, trained: tuple[Path, str]) -> None:
        cwd, out = trained
        assert re.search(r'^epoch 2/2: loss [\d.]+, val top-1 [\d.]+ %$', out, re.MULTILINE)
        end = out[out.rindex('top-1 on the validation data after the last epoch (2)') :]
        saved = 'work_dirs/warn_cnn_digits'
        last = f'test it: fgplugins test {saved}/warn_cnn_digits.py {saved}/epoch_2.pth'
        assert end.splitlines()[-1] == last
        for name in ('checkpoint', 'log', 'attention maps'):
            path = re.search(rf'^{name}: (.+)$', end, re.MULTILINE).group(1)
            assert (cwd / path).is_file(), name
        image = np.asarray(Image.open(cwd / 'work_dirs/warn_cnn_digits/attention_maps.png'))
        assert min(image.shape[:2]) > 300 and image.std() > 20

    def test_testing_gives_the_same_accuracy(
        self, trained: tuple[Path, str], run_tool: object, tmp_path: Path
    ) -> None:
        cwd, out = trained
        printed = float(re.search(r'last epoch \(2\): ([\d.]+) %', out).group(1))
        done = run_tool(
            'test', config('warn_cnn_digits'), str(cwd / 'work_dirs/warn_cnn_digits/epoch_2.pth'),
            '--work-dir', 'tested', '--out', 'predictions.pkl', '--cfg-options', *SMALL,
            'test_dataloader.dataset.split=val',
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert float(re.search(r'top-1: ([\d.]+) %$', done.stdout, re.M).group(1)) == printed
        assert (tmp_path / 'predictions.pkl').is_file()
        assert (tmp_path / 'tested/epoch_2/confusion_matrix.csv').is_file()

    def test_resuming_is_the_uninterrupted_run(
        self, trained: tuple[Path, str], run_tool: object, tmp_path: Path
    ) -> None:
        common = (config('warn_cnn_digits'), '--work-dir', 'resumed', '--cfg-options', *SMALL)
        first = run_tool('train', *common, 'train_cfg.max_epochs=1')
        assert first.returncode == 0, first.stderr
        second = run_tool('train', *common[:3], '--resume', *common[3:])
        assert second.returncode == 0 and 'goes on from' in second.stdout, second.stderr
        assert 'epoch_1.pth, after epoch 1\n' in second.stdout and 'epoch 1/2' not in second.stdout
        whole = weights(trained[0] / 'work_dirs/warn_cnn_digits/epoch_2.pth')
        parts = weights(tmp_path / 'resumed/epoch_2.pth')
        assert all(torch.equal(whole[k], parts[k]) for k in whole)

    def test_mixed_precision(self, run_tool: object, tmp_path: Path) -> None:
        done = run_tool(
            'train', config('gap_cnn_digits'), '--amp', '--seed', '3', '--epochs', '1',
            '--cfg-options', *SMALL[:-1], 'train_dataloader.dataset.num_images=64',
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (log,) = (tmp_path / 'work_dirs/gap_cnn_digits').glob('*/*.log')
        assert 'AutocastOptimWrapper' in log.read_text() and 'nan' not in done.stdout

    def test_two_processes(self, trained: tuple[Path, str]) -> None:
        """dist_train.sh on CPUs; both ranks' halves make the batch."""
        done = run(
            str(ROOT / 'tools/dist_train.sh'), config('warn_cnn_digits'), '2', '--work-dir', 'two',
            '--cfg-options', *SMALL, cwd=trained[0], PORT='29511',
            PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        (log,) = (trained[0] / 'two').glob('*/*.log')
        assert '[2/2]' in log.read_text()  # 128 images in batches of 32 on two processes
        assert done.stdout.count('top-1 on the validation data') == 1
        assert done.stdout.count('epoch 2/2: ') == 1
        assert (trained[0] / 'two/epoch_2.pth').is_file()

    def test_attention_of_own_images(
        self, trained: tuple[Path, str], run_tool: object, tmp_path: Path
    ) -> None:
        for i in range(3):
            Image.fromarray(np.full((30, 50), 40 * i, np.uint8)).save(tmp_path / f'{i}.png')
        checkpoint = str(trained[0] / 'work_dirs/warn_cnn_digits/epoch_2.pth')
        done = run_tool(
            'show_attention', config('warn_cnn_digits'), checkpoint, '0.png', '1.png', '2.png',
            '--out', 'own.png',
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (tmp_path / 'own.png').is_file()


def test_pretrained_weights_are_loaded_or_refused(
    run_tool: object, trained: tuple[Path, str], tmp_path: Path
) -> None:
    """A run's checkpoint or a plain network's weights start the backbone of another."""
    import timm

    good = str(trained[0] / 'work_dirs/warn_cnn_digits/epoch_2.pth')
    still = [
        '--workers', '0', '--no-validate', '--cfg-options', *SMALL, 'train_cfg.max_epochs=1',
        'train_dataloader.dataset.num_images=32', 'optim_wrapper.optimizer.lr=0.0',
    ]  # fmt: skip
    state = weights(Path(good))
    plain = timm.create_model('clutter_cnn')
    prefix = 'backbone.timm_model.'
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    plain.load_state_dict(inner, strict=False)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    for source in (good, str(tmp_path / 'plain.pth')):
        done = run_tool('train', config('gap_cnn_digits'), '--pretrained', source, *still)
        assert done.returncode == 0, done.stderr
        started = weights(tmp_path / 'work_dirs/gap_cnn_digits/epoch_1.pth')
        for name in (f'{prefix}stages.0.0.weight', f'{prefix}stages.3.2.weight'):
            assert torch.equal(started[name], state[name])
    narrow = ['--cfg-options', 'model.backbone.widths=(8,8,8,8,8)']
    done = run_tool('train', config('gap_cnn_digits'), '--pretrained', good, *narrow)
    assert_one_error(done, 'does not fit the backbone')
    done = run_tool('train', config('gap_cnn_digits'), '--pretrained', 'plain.pth', *narrow)
    assert_one_error(done, "checkpoint_path='plain.pth' does not fit: stages.0.0.weight is (16, 1,")
    # a file of MMPretrain's TIMMBackbone has the same weights under other names
    theirs = {f'backbone.timm_model.model.{k}': v for k, v in plain.state_dict().items()}
    torch.save({'state_dict': theirs}, tmp_path / 'theirs.pth')
    done = run_tool('train', config('gap_cnn_digits'), '--pretrained', 'theirs.pth', *still)
    assert done.returncode == 0, done.stderr
    started = weights(tmp_path / 'work_dirs/gap_cnn_digits/epoch_1.pth')
    assert torch.equal(started[f'{prefix}stages.3.2.weight'], state[f'{prefix}stages.3.2.weight'])


class TestOwnFolder:
    """A folder of look-alike images, one folder a class, and nothing but --data-root."""

    NARROW = (
        'model.backbone.depth=18',
        'model.backbone.base_channels=8',
        'model.backbone.stem_channels=8',
    )
    FEW = ('train_cfg.max_epochs=1', 'train_dataloader.batch_size=4', *NARROW)

    @pytest.fixture(scope='class')
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp('birds')
        rng = np.random.default_rng(0)
        for split, count in (('train', 4), ('val', 2)):
            for name in ('finch', 'robin', 'wren'):
                (root / split / name).mkdir(parents=True)
                for i in range(count):
                    pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
                    Image.fromarray(pixels).save(root / split / name / f'{i}.jpg', quality=90)
        return root

    def test_classes_are_counted(self, folder: Path, tmp_path: Path, run_tool: object) -> None:
        done = run_tool(
            'train', 'warn_r50_cub', '--data-root', str(folder), '--cfg-options', *self.FEW
        )
        assert done.returncode == 0, done.stderr
        assert 'note: 3 classes, counted in the data (the config says 200)' in done.stdout
        assert 'starts from random weights; --pretrained downloads' in done.stdout
        state = weights(tmp_path / 'work_dirs/warn_r50_cub/epoch_1.pth')
        assert state['head.method.classifier.weight'].shape == (3, 64)

        for split in ('train', 'test'):
            for name in ('gull', 'tern'):
                (tmp_path / 'sea' / split / name).mkdir(parents=True)
                Image.new('RGB', (9, 9)).save(tmp_path / 'sea' / split / name / '0.jpg')
        done = run_tool(
            'test', 'warn_r50_cub', 'work_dirs/warn_r50_cub/epoch_1.pth', '--data-root', 'sea',
            '--cfg-options', *self.NARROW,
        )  # fmt: skip
        assert_one_error(done, "of 3 in the one, 'gull' of 2 in the other")

        done = run_tool(
            'train', 'gap_r50_cub', '--data-root', str(folder), '--pretrained', 'none.pth',
            '--work-dir', 'no', '--cfg-options', *self.FEW,
        )  # fmt: skip
        assert_one_error(done, "--pretrained 'none.pth' is not a file")
        assert not (tmp_path / 'no').exists()

    def test_a_truncated_image_is_named(
        self, folder: Path, tmp_path: Path, run_tool: object
    ) -> None:
        broken = folder / 'train' / 'wren' / '0.jpg'
        whole = broken.read_bytes()
        broken.write_bytes(whole[: len(whole) // 2])
        try:
            done = run_tool(
                'train', 'gap_r50_cub', '--data-root', str(folder), '--cfg-options', *self.FEW
            )
        finally:
            broken.write_bytes(whole)
        assert_one_error(done, f'image {broken} cannot be read: image file is truncated')
        assert not list(tmp_path.rglob('*.pth'))


def assert_one_error(done: subprocess.CompletedProcess, message: str) -> None:
    """One line of error, exit code 2, no frames."""
    assert done.returncode == 2, done.stdout[-1000:] + done.stderr[-1000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and message in errors[0], done.stderr[-2000:]
    assert 'Traceback' not in done.stderr and 'Traceback' not in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['warn_cnn_digit'], 'shipped ones: warn_cnn_digits'),
        (['warn_r50_cub', '--data-root', 'nowhere'], "data root 'nowhere' is not a folder"),
        (['warn_r50_cub'], "data root 'data/cub' is not a folder: pass --data-root"),
        (['warn_r50_cub', '--data-root', '.'], 'holds nothing; it should hold train/<class>'),
        (['warn_cnn_digits', '--data-root', '.'], 'put the four MNIST idx files there'),
        (['warn_cnn_digits', '--cfg-options', 'model.head.type=WRANHead'], 'did you mean WARNHead'),
        (
            ['warn_cnn_digits', '--cfg-options', 'model.backbone.model_name=resnet5000'],
            'resnet5000',
        ),
        (['warn_cnn_digits', '--cfg-options', 'model.backbone.type=ResNot'], 'did you mean'),
        (['warn_cnn_digits', '--cfg-options', 'model.backbone.levels=(3,)'], 'gives 1'),
        (
            ['warn_cnn_digits', '--cfg-options', 'model.backbone.out_indices=(3,)'],
            'out_indices=(3,): TimmNetwork takes levels',
        ),
        (
            ['warn_cnn_digits', '--cfg-options', 'model.backbone.widht=3'],
            "neither TimmNetwork nor clutter_cnn takes 'widht'",
        ),
        (
            ['warn_cnn_digits', '--backbone', 'resnet19'],
            "--backbone 'resnet19' is not a timm model",
        ),
        (
            ['warn_cnn_digits', '--cfg-options', 'model.head.in_channels=[1,2,3,4]'],
            'set in_channels=[16, 32, 64, 128]',
        ),
        (['warn_cnn_digits', '--cfg-options', 'model.head.headz=2'], 'did you mean heads?'),
        (['warn_cnn_digits', '--cfg-options', 'heads'], "--cfg-options 'heads': must read KEY"),
        (['warn_cnn_digits', '--cfg-options', 'modell.a=2'], "no 'modell'; did you mean model "),
        (['warn_cnn_digits', '--cfg-options', 'model.head.num_classes=7'], 'data have 10 classes'),
        (['warn_cnn_digits', '--resume', 'none.pth'], "checkpoint 'none.pth' is not a file"),
        (['warn_cnn_digits', '--launcher', 'pytorch'], 'torchrun --nproc-per-node 2'),
        (
            ['warn_cnn_digits', '--pretrained'],
            'no weights are named: this config trains from',
        ),
        (['siou_r18_voc2012'], "data root 'data/VOC2012' should hold JPEGImages/*.jpg"),
        (['siou_r18_imagenet', '--data-root', '.'], "data root '.' should hold train/<class>/"),
        (['siou_r18_caltech256', '--data-root', '.'], '(docs/data.md): CUB-200-2011, '),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_mistakes_in_training(
    run_tool: object, tmp_path: Path, arguments: list, message: str
) -> None:
    done = run_tool('train', *arguments)
    assert_one_error(done, message)
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_settings_of_the_loop_and_the_optimizer_are_named(
    run_tool: object, trained: tuple[Path, str], tmp_path: Path
) -> None:
    for setting, message in (
        ('train_cfg.max_epoch=1', 'error: train_cfg: EpochBasedTrainLoop.__init__() got an'),
        ('optim_wrapper.optimizer.lrr=1', 'error: optim_wrapper: '),
    ):
        done = run_tool(
            'train', config('warn_cnn_digits'), '--work-dir', str(tmp_path / 'run'),
            '--cfg-options', *SMALL, setting,
        )  # fmt: skip
        assert_one_error(done, message)


def test_checkpoints_that_do_not_fit(run_tool: object, trained: tuple[Path, str]) -> None:
    good = str(trained[0] / 'work_dirs/warn_cnn_digits/epoch_2.pth')
    small = ['--cfg-options', *SMALL]
    assert_one_error(
        run_tool('test', config('warn_cnn_digits'), good, '--cfg-options',
                   'model.backbone.widths=(8,8,8,8,8)'),
        'does not fit: backbone.timm_model',
    )  # fmt: skip
    assert_one_error(
        run_tool('test', config('gap_cnn_digits'), good, *small), 'was trained with WARNHead'
    )
    garbage = trained[0] / 'garbage.pth'
    garbage.write_bytes(b'not a checkpoint')
    assert_one_error(
        run_tool('test', config('warn_cnn_digits'), str(garbage), *small), 'cannot be read'
    )

    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(trained[0] / 'owned'),)

    torch.save({'state_dict': {}, 'meta': Evil()}, garbage)
    assert_one_error(
        run_tool('test', config('warn_cnn_digits'), str(garbage), *small), 'cannot be read'
    )
    assert not (trained[0] / 'owned').exists()

    other = dict(weights(Path(good)))
    torch.save({'state_dict': {f'x.{k}': v for k, v in other.items()}}, garbage)
    assert_one_error(
        run_tool('test', config('warn_cnn_digits'), str(garbage), *small), 'another model'
    )


def test_counts_of_a_config_and_of_a_timm_model(run_tool: object, tmp_path: Path) -> None:
    done = run_tool(
        'get_flops', config('warn_wrn28_10_cifar100'), '--json', 'a.json', '--depth', '3'
    )
    assert done.returncode == 0, done.stderr
    assert 'parameters: 40.652 M (40,652,084)' in done.stdout
    assert "MACs in the paper's order: 6.296 G" in done.stdout and 'MACs: 5.268 G' in done.stdout
    one = json.loads((tmp_path / 'a.json').read_text())
    done = run_tool(
        'get_flops', 'warn_wrn28_10', '--model-kwargs', 'num_classes=100', '--json', 'b.json'
    )
    other = json.loads((tmp_path / 'b.json').read_text())
    assert done.returncode == 0 and one['ours']['macs'] == other['ours']['macs']
    assert (
        one['ours']['modules']['head.method']['macs'] == other['ours']['modules']['method']['macs']
    )

    done = run_tool(
        'get_flops', 'warn', '--model-kwargs', 'backbone=resnet10t', '--shape', '64', '96'
    )
    assert done.returncode == 0 and 'input 3 x 64 x 96' in done.stdout


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('get_flops', ['warm'], "'warm' is neither a config (a file, or one of configs/), nor"),
        ('get_flops', ['warn_wrn28', '--model-kwargs', 'a=1'], 'did you mean warn_wrn28_10 or'),
        ('get_flops', ['warn', '--out', 'no/a.md'], '--out no/a.md: there is no folder no'),
        ('get_flops', ['warn', '--json', '.'], '--json .: is a folder'),
        ('benchmark', ['warn', '--plot', 'no/a.png'], '--plot no/a.png: there is no folder no'),
        ('show_attention', ['warn', 'a', 'b', '--out', 'no/a.png'], 'there is no folder no'),
        ('deploy', ['siou', 'a.pth'], "checkpoint 'a.pth' is not a file"),
        ('get_flops', ['warn', '--model-kwargs', 'backbone'], 'must read KEY=VALUE'),
        (
            'get_flops',
            ['warn', '--model-kwargs', 'backbone=resnot'],
            "'resnot' is not a timm model",
        ),
        ('get_flops', ['warn', '--cfg-options', 'a=1'], '--cfg-options is for configs'),
        ('show_attention', ['warn', 'a.pth', 'none.jpg'], "image 'none.jpg' is not there"),
        ('show_attention', ['warn', 'a.pth', '.'], 'no images in .'),
        ('test', ['warn_cnn_digits', 'none.pth'], "checkpoint 'none.pth' is not a file"),
        ('test', ['warn_cnn_digits', 'a.pth', '--terms', '--tta'], 'run it without --tta'),
        (
            'test',
            ['warn_cnn_digits', 'a.pth', '--terms', '--launcher', 'pytorch'],
            'run it without --launcher',
        ),
        ('test', ['warn_cnn_digits', 'a.pth', '--json', 'no/a.json'], 'there is no folder no'),
        ('test', ['warn_cnn_digits', 'a.pth', '--uncropped'], 'crops nothing: LoadImage, Resize'),
    ],
)
def test_mistakes_in_other_tools(
    run_tool: object, name: str, arguments: list, message: str
) -> None:
    assert_one_error(run_tool(name, *arguments), message)


def test_layers_and_memory(run_tool: object, tmp_path: Path) -> None:
    kwargs = ['--model-kwargs', 'backbone=resnet10t', 'num_classes=3']
    done = run_tool('get_flops', 'clan', *kwargs, '--shape', '64', '--layers', '--json', 'l.json')
    assert done.returncode == 0 and "by layers, in the paper's order" in done.stdout, done.stderr
    counts = json.loads((tmp_path / 'l.json').read_text())
    assert counts['ours']['with_products'] > counts['ours']['layers'] > 0

    sizes = ['--sizes', '384', '512', '640', '--json', 'm.json']
    done = run_tool(
        'get_memory', 'clan', '--model-kwargs', 'backbone=resnet10t', 'inner_channels=8', *sizes
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'm.json').read_text())['rows']
    positions = [sum(row['positions']) for row in rows]
    growth = [
        (b['ours'] - a['ours']) / (q - p)
        for a, b, p, q in zip(rows, rows[1:], positions, positions[1:], strict=False)
    ]
    assert growth[1] == pytest.approx(growth[0], rel=0.05), 'linear in the number of positions'
    assert rows[2]['paper'] > 2 * rows[2]['ours']


def test_a_query_changes_what_att2_shows(run_tool: object, tmp_path: Path) -> None:
    import timm

    kwargs = {'backbone': 'clutter_cnn', 'in_chans': 1, 'num_classes': 3, 'compat': 'dp'}
    torch.save(timm.create_model('att2', **kwargs).state_dict(), tmp_path / 'a.pth')
    rng = np.random.default_rng(0)
    for name in ('x', 'y'):
        Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(tmp_path / f'{name}.png')
    arguments = ['a.pth', 'x.png', '--model-kwargs', *(f'{k}={v}' for k, v in kwargs.items())]
    pictures = {}
    for name, query in (('own', []), ('same', ['x.png']), ('other', ['y.png'])):
        asked = ['--query', *query] if query else []
        done = run_tool('show_attention', 'att2', *arguments, *asked, '--out', f'{name}.png')
        assert done.returncode == 0, done.stderr
        pictures[name] = np.asarray(Image.open(tmp_path / f'{name}.png'))
    assert np.array_equal(pictures['own'], pictures['same'])
    assert not np.array_equal(pictures['own'], pictures['other'])

    torch.save(
        timm.create_model('gap', **{**kwargs, 'compat': None}).state_dict(), tmp_path / 'a.pth'
    )
    done = run_tool('show_attention', 'gap', *arguments[:-1], '--query', 'y.png')
    assert_one_error(done, '--query: GAP does not take a query')


class TestTesting:
    """tools/test.py: the metrics, the terms of the loss, several views and whole images."""

    # a narrow ResNet-18, for the sake of time
    NARROW: ClassVar = {
        'model.head.num_classes': 3,
        'model.backbone.depth': 18,
        'model.backbone.stem_channels': 8,
        'model.backbone.base_channels': 8,
    }

    @staticmethod
    def model(name: str, path: Path, **options: object) -> torch.nn.Module:
        """The model of a config, its untrained weights saved as a checkpoint."""
        import argparse

        from fgplugins.zoo_mmpretrain.running import configs, models

        arguments = dict(config=name, cfg_options=options, work_dir=None, data_root=None)
        model = models.check_model(configs.load_config(argparse.Namespace(**arguments)))
        torch.save({'state_dict': model.state_dict()}, path)
        return model.eval()

    @staticmethod
    def folder(root: Path, splits: tuple[str, ...]) -> Path:
        rng = np.random.default_rng(0)
        for split in splits:
            for name, size in (('finch', (300, 520)), ('robin', (340, 260)), ('wren', (280, 280))):
                (root / split / name).mkdir(parents=True)
                pixels = rng.integers(0, 256, (*size, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / '0.png')
        return root

    @staticmethod
    def inputs(path: Path, short: int) -> torch.Tensor:
        """An image as the networks see it, its shorter side resized, by Pillow and plain sums."""
        import cv2

        image = np.asarray(Image.open(path))
        H, W = image.shape[:2]
        scale = short / min(H, W)
        image = cv2.resize(image, (int(W * scale), int(H * scale)), interpolation=cv2.INTER_LINEAR)
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        return torch.from_numpy((image - mean) / std).permute(2, 0, 1)[None].float()

    def test_terms_and_json(self, run_tool: object, tmp_path: Path) -> None:
        self.model('gap_cnn_digits', tmp_path / 'a.pth')
        few = ['--cfg-options', 'test_dataloader.dataset.num_images=60',
               'test_dataloader.batch_size=25']  # fmt: skip
        done = run_tool('test', 'gap_cnn_digits', 'a.pth', '--terms', '--json', 'r.json', *few)
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / 'r.json').read_text())
        assert report['config'] == 'gap_cnn_digits' and report['views'] == 'one'
        assert set(report['metrics']) >= {'accuracy/top1'}
        assert report['terms']['loss_ce'] == report['terms']['loss'] == pytest.approx(2.3, abs=0.4)
        assert f'loss_ce: {report["terms"]["loss_ce"]:.4f}' in done.stdout
        one = report['metrics']['accuracy/top1']

        done = run_tool('test', 'gap_cnn_digits', 'a.pth', '--tta', '--json', 'r.json', *few)
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / 'r.json').read_text())
        assert report['views'] == 'tta' and report['terms'] == {}
        assert f'top-1: {report["metrics"]["accuracy/top1"]:.2f} %\n' in done.stdout
        done = run_tool('test', 'gap_cnn_digits', 'a.pth', *few)
        assert f'top-1: {one:.2f} %\n' in done.stdout

    def test_ten_crops_are_averaged(self, run_tool: object, tmp_path: Path) -> None:
        from torchvision.transforms.functional import ten_crop

        birds = self.folder(tmp_path / 'birds', ('train', 'val'))
        model = self.model('siou_r18_imagenet', tmp_path / 'a.pth', **self.NARROW)
        done = run_tool(
            'test', 'siou_r18_imagenet', 'a.pth', '--tta', '--out', 'a.pkl', '--data-root', 'birds',
            '--cfg-options', 'test_dataloader.dataset.metainfo.classes=[finch,robin,wren]',
            'test_evaluator.topk=(1,)', 'test_dataloader.num_workers=0',
            'test_dataloader.batch_size=2', *(f'{k}={v}' for k, v in self.NARROW.items()),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = pickle.loads((tmp_path / 'a.pkl').read_bytes())
        assert len(found) == 3
        for sample in found:
            whole = self.inputs(Path(sample['img_path']), 256)
            with torch.no_grad():
                scores = model(torch.cat(ten_crop(whole, 224))).softmax(dim=1).mean(dim=0)
            torch.testing.assert_close(sample['pred_score'], scores, rtol=0, atol=0.01)
            assert str(birds) in str(Path(sample['img_path']).absolute())

    def test_whole_images_and_deployed_weights(self, run_tool: object, tmp_path: Path) -> None:
        """Images of three sizes, each classified at every position; also without N_ar's weights."""
        self.folder(tmp_path / 'birds', ('train', 'test'))
        model = self.model('art_r50_cub', tmp_path / 'whole.pth', **self.NARROW)
        kept = {k: v for k, v in model.state_dict().items() if k.startswith(('backbone', 'head'))}
        torch.save(kept, tmp_path / 'deployed.pth')
        arguments = (
            '--uncropped', '--out', 'a.pkl', '--data-root', 'birds', '--cfg-options',
            'test_dataloader.num_workers=0', *(f'{k}={v}' for k, v in self.NARROW.items()),
        )  # fmt: skip
        for checkpoint in ('whole.pth', 'deployed.pth'):
            done = run_tool('test', 'art_r50_cub', checkpoint, *arguments)
            assert done.returncode == 0, done.stderr
            found = pickle.loads((tmp_path / 'a.pkl').read_bytes())
            assert len({tuple(sample['img_shape']) for sample in found}) == 3
            for sample in found:
                with torch.no_grad():
                    feature = model.extract_feat(self.inputs(Path(sample['img_path']), 512))[-1]
                    linear = model.head.method.classifier
                    dense = linear(feature[0].flatten(1).T)  # (positions, classes)
                scores = dense.mean(dim=0).softmax(dim=0)
                torch.testing.assert_close(sample['pred_score'], scores, rtol=0, atol=0.01)

    def test_several_classes_an_image(self, run_tool: object, tmp_path: Path) -> None:
        """VOC's layout, trained for an epoch and tested: mAP, AUC and the terms."""
        labels = {'a': ['cat', 'dog'], 'b': ['cat'], 'c': ['bus'], 'd': ['dog', 'bus'], 'e': []}
        voc = tmp_path / 'voc'
        for part in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
            (voc / part).mkdir(parents=True)
        for name, objects in labels.items():
            rows = [(o, 0) for o in objects] or [('cat', 1)]  # one image has difficult objects only
            text = ''.join(
                f'<object><name>{o}</name><difficult>{d}</difficult></object>' for o, d in rows
            )
            (voc / 'Annotations' / f'{name}.xml').write_text(f'<annotation>{text}</annotation>')
            pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(pixels).save(voc / 'JPEGImages' / f'{name}.jpg')
        for split in ('train', 'val'):
            (voc / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(labels) + '\n')
        narrow = [f'{k}={v}' for k, v in self.NARROW.items() if 'num_classes' not in k]
        few = ('--data-root', 'voc', '--cfg-options', 'train_dataloader.batch_size=3', *narrow)
        done = run_tool('train', 'siou_r18_voc2012', *few, 'train_cfg.max_epochs=1')
        assert done.returncode == 0, done.stderr[-2000:]
        assert 'multi-label/mAP on the test data after the last epoch (1): ' in done.stdout
        assert 'left out; the other 3 of 20 classes count' in done.stdout
        done = run_tool(
            'test', 'siou_r18_voc2012', 'work_dirs/siou_r18_voc2012/epoch_1.pth', '--terms',
            '--json', 'r.json', *few, 'test_dataloader.num_workers=0',
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        report = json.loads((tmp_path / 'r.json').read_text())
        assert 0 <= report['metrics']['multi-label/mAP'] <= 100
        assert 0 <= report['metrics']['multi-label/AUC'] <= 100
        assert {'loss_soft_margin', 'loss_siou_inner', 'loss_siou_last'} <= set(report['terms'])


@pytest.mark.parametrize(
    ('name', 'arguments'), [('train', ['gap_cnn_digits']), ('test', ['gap_cnn_digits', 'a.pth'])]
)
def test_without_mmpretrain_the_extra_is_named(
    name: str, arguments: list[str], tmp_path: Path
) -> None:
    code = (
        'import importlib.metadata as m, runpy, sys\n'
        'def version(name, real=m.version):\n'
        "    if name.startswith(('mm', 'onedl')):\n"
        '        raise m.PackageNotFoundError(name)\n'
        '    return real(name)\n'
        'm.version = version\n'
        f"runpy.run_path({str(ROOT / 'tools' / f'{name}.py')!r}, run_name='__main__')\n"
    )
    done = run(sys.executable, '-c', code, *arguments, cwd=tmp_path)
    assert_one_error(done, "pip install 'fgplugins[mm]'")


@pytest.mark.parametrize('name', ['train', 'test', 'get_flops', 'get_memory', 'show_attention'])
def test_help(run_tool: object, name: str) -> None:
    done = run_tool(name, '--help')
    assert done.returncode == 0 and 'python tools/' in done.stdout


class TestTrainingOnly:
    """What siou and art leave behind: pictures of their training, and the plain network."""

    KWARGS: ClassVar = {'backbone': 'clutter_cnn', 'in_chans': 1, 'num_classes': 3}

    def model(self, method: str, folder: Path) -> list[str]:
        """A checkpoint of training and an image; the arguments that name them."""
        import timm

        from fgplugins.zoo_timm.task import MethodTask

        task = MethodTask(timm.create_model(method, **self.KWARGS), verbose=False)
        torch.save(task.get_checkpoint_state(), folder / 'a.pth')
        pixels = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
        Image.fromarray(pixels).save(folder / 'x.png')
        return ['--model-kwargs', *(f'{k}={v}' for k, v in self.KWARGS.items())]

    def test_pictures(self, run_tool: object, tmp_path: Path) -> None:
        pictures = {}
        for name, method, asked in (
            ('rival', 'siou', []),
            ('classes', 'siou', ['--classes', '2', '0', '1']),
            ('versus', 'siou', ['--versus', 'other/a.pth']),
            ('views', 'art', ['--views']),
        ):
            arguments = self.model(method, tmp_path)
            if name == 'versus':
                self.model('gap', tmp_path)
                (tmp_path / 'other').mkdir()
                (tmp_path / 'a.pth').rename(tmp_path / 'other' / 'a.pth')
                arguments = self.model('siou', tmp_path)
            done = run_tool(
                'show_attention', method, 'a.pth', 'x.png', *asked, *arguments,
                '--out', f'{name}.png',
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            pictures[name] = np.asarray(Image.open(tmp_path / f'{name}.png'))
            assert pictures[name].std() > 10
        # one column for the image, and two levels of 2 heads, of 3, of two models' 2; two views
        widths = {name: round(picture.shape[1] / 180) for name, picture in pictures.items()}
        assert widths == {'rival': 5, 'classes': 7, 'versus': 9, 'views': 3}

    def test_mistakes(self, run_tool: object, tmp_path: Path) -> None:
        arguments = self.model('siou', tmp_path)
        show = ['show_attention', 'siou', 'a.pth', 'x.png']
        for asked, message in (
            (['--views'], '--views: SIoU trains on no views of the image'),
            (['--classes', '3'], "--classes '3': neither the name of a class nor a number below 3"),
            (['--views', '--classes', '1'], '--views is shown alone'),
        ):
            assert_one_error(run_tool(*show, *asked, *arguments), message)
        assert_one_error(
            run_tool('deploy', 'siou', 'a.pth', *arguments, '--out', 'a.pt'), 'must end in .pth'
        )
        assert_one_error(
            run_tool('deploy', 'siou', 'a.pth', *arguments, '--out', 'a.pth'), 'checkpoint itself'
        )
        assert_one_error(run_tool('deploy', 'resnet10t', 'a.pth'), 'is of another model: it lacks')

    @pytest.mark.parametrize('method', ['siou', 'art', 'warn'])
    def test_deploying_a_timm_model(self, run_tool: object, method: str, tmp_path: Path) -> None:
        import timm

        done = run_tool('deploy', method, 'a.pth', *self.model(method, tmp_path))
        assert done.returncode == 0, done.stderr
        content = torch.load(tmp_path / 'a_deployed.pth', weights_only=True)
        assert content['arch'] == ('warn' if method == 'warn' else 'clutter_cnn')
        arguments = re.search(r'^use: timm.create_model\((.*)\)$', done.stdout, re.MULTILINE).group(
            1
        )
        os.chdir(tmp_path)
        plain = eval(f'timm.create_model({arguments})', {'timm': timm}).eval()
        trained = timm.create_model(method, **self.KWARGS).eval()
        trained.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True)['state_dict'])
        x = torch.randn(2, 1, 40, 40)
        with torch.no_grad():
            assert torch.equal(plain(x), trained(x))

    @pytest.mark.parametrize('method', ['siou', 'art'])
    def test_deploying_a_config(self, run_tool: object, method: str, tmp_path: Path) -> None:
        """The written config and weights test like the trained ones, without the second network."""
        from mmengine.config import Config

        from fgplugins.zoo_mmpretrain.running import models

        name = f'{method}_r110_cifar10'
        small = ['model.backbone.depth=8']
        cfg = Config.fromfile(config(name))
        cfg.merge_from_dict({'model.backbone.depth': 8})
        trained = models.check_model(cfg)
        torch.save({'state_dict': trained.state_dict()}, tmp_path / 'a.pth')
        done = run_tool('deploy', name, 'a.pth', '--cfg-options', *small)
        assert done.returncode == 0, done.stderr
        shipped = Config.fromfile(tmp_path / 'a_deployed.py')
        assert shipped.model.type == 'TimmClassifier'
        plain = models.check_model(shipped)
        plain.load_state_dict(
            torch.load(tmp_path / 'a_deployed.pth', weights_only=True)['state_dict']
        )
        x = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(plain.eval()(x), trained.eval()(x))
        rng = np.random.default_rng(0)
        for split in ('train', 'test'):
            for label in range(10):
                folder = tmp_path / 'data' / split / str(label)
                folder.mkdir(parents=True)
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / '0.png')
        printed = []
        for model, weights in ((name, 'a.pth'), ('a_deployed.py', 'a_deployed.pth')):
            options = small if model == name else []
            done = run_tool(
                'test', model, weights, '--data-root', 'data',
                *(['--cfg-options', *options] if options else []),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            printed.append(re.search(r'top-1: ([\d.]+) %$', done.stdout, re.M).group(1))
        assert printed[0] == printed[1]
